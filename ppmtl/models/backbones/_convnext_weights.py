"""How other projects name the weights of a ConvNeXt. Ours are facebook's names, which PaddleClas and PaddleDetection share.

Source: reference/model.md section 1. Needs no Paddle: tools/convert_weights.py reads it alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ppmtl.weights.names import Naming, Shape, WeightNames

_OUTPUT_NORM = r"norm[0-3]\.(weight|bias)\Z"  # of dense models only: never in a classifier's checkpoint
_FACEBOOK = Naming("facebook / PaddleClas", r"downsample_layers\.0\.0\.weight", r"(downsample_layers|stages|norm\d)\.")
_TIMM = Naming(
    "timm",
    r"stem[._]0\.weight",  # with an underscore under features_only
    r"(stem|stages)[._]",
    (
        (r"^stem[._]", "downsample_layers.0."),
        (r"^stages[._](\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages[._](\d)\.blocks\.", r"stages.\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc([12])\.", r".pwconv\1."),
    ),
)
_HUGGING_FACE = Naming(
    "Hugging Face transformers",
    r"embeddings\.patch_embeddings\.weight",
    r"(embeddings|encoder|hidden_states_norms)\.",
    (
        (r"^embeddings\.patch_embeddings\.", "downsample_layers.0.0."),
        (r"^embeddings\.layernorm\.", "downsample_layers.0.1."),
        (r"^encoder\.stages\.(\d)\.downsampling_layer\.", r"downsample_layers.\1."),
        (r"^encoder\.stages\.(\d)\.layers\.", r"stages.\1."),
        *((rf"^hidden_states_norms\.stage{level + 1}\.", f"norm{level}.") for level in range(4)),
        (r"\.layernorm\.", ".norm."),
        (r"\.layer_scale_parameter$", ".gamma"),
    ),
)


def _shapes(tensors: Mapping[str, Shape], source: str) -> dict[str, Shape]:
    """{name: shape} of the complete ConvNeXt whose depths, dims and kernels the tensors show."""
    shapes = {name: shape for name, shape in tensors.items() if re.match(_OUTPUT_NORM, name)}
    kernel = tensors.get("stages.0.0.dwconv.weight", (1, 1, 7, 7))[2:]
    layer_scale = any(name.endswith(".gamma") for name in tensors)
    before = 3
    for stage in range(4):
        convolution = tensors.get(f"downsample_layers.{stage}.{min(stage, 1)}.weight")
        blocks = {name.split(".")[2] for name in tensors if re.match(rf"stages\.{stage}\.\d+\.", name)}
        if not convolution or not blocks:
            raise ValueError(f"pretrained: {source} has no complete stage {stage}; a ConvNeXt has stages 0 to 3")
        c = convolution[0]
        norm, conv, normed, size = (1, 0, c, 4) if stage == 0 else (0, 1, before, 2)
        layers = {str(norm): (normed,), str(conv): (c, before, size, size)}
        shapes |= _with_bias(f"downsample_layers.{stage}", layers)
        for block in range(len(blocks)):  # not up to the largest number: a gap must show up as missing
            layers = {"dwconv": (c, 1, *kernel), "norm": (c,), "pwconv1": (c, 4 * c), "pwconv2": (4 * c, c)}
            shapes |= _with_bias(f"stages.{stage}.{block}", layers)
            if layer_scale:
                shapes[f"stages.{stage}.{block}.gamma"] = (c,)
        before = c
    return shapes


def _with_bias(prefix: str, layers: Mapping[str, Shape]) -> dict[str, Shape]:
    weights = {f"{prefix}.{name}.weight": shape for name, shape in layers.items()}
    # A bias is as long as the outputs, in a linear layer the last axis
    return weights | {f"{prefix}.{n}.bias": (shape[-1 if len(shape) == 2 else 0],) for n, shape in layers.items()}


WEIGHT_NAMES = WeightNames(
    "ConvNeXt",
    (_FACEBOOK, _TIMM, _HUGGING_FACE),
    linear=r"stages\.\d+\.\d+\.pwconv[12]\.weight\Z",
    shapes=_shapes,
    optional=_OUTPUT_NORM,
)
