"""How other projects name the weights of a ViT. Needs no Paddle.

timm, facebook (MAE, DINO, ViTDet), PaddleClas and the challenge's baseline share one set of names; ours are the same.
They differ in what stands around the backbone, in the layout of linear weights, and in the absolute positions: with a row for
the class token, without, or (SAM) as a grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ppmtl.weights.names import Naming, Shape, WeightNames

# Only in files of detectors: relative positions, the maps. The final norm is missing where another one follows pooling
# (timm's and MAE's fc_norm). fpn1, fpn3, fpn4: branches of the baseline that nothing reads or that have no weights
_OPTIONAL = r"pos_embed\Z|blocks\.\d+\.attn\.rel_pos_[hw]\Z|norm\.(weight|bias)\Z|fpn\d\."
_INSIDE = r"(patch_embed|pos_embed|blocks|norm|fpn\d)(\.|\Z)"

_COMMON = Naming("timm / facebook / PaddleClas", r"patch_embed\.proj\.weight", _INSIDE)


def _shapes(tensors: Mapping[str, Shape], source: str) -> dict[str, Shape]:
    """{name: shape} of the complete ViT whose width and depth the tensors show; optional parts where the file has them."""
    blocks = {name.split(".")[1] for name in tensors if re.match(r"blocks\.\d+\.", name)}
    if not blocks:
        raise ValueError(f"pretrained: {source} has no blocks; a ViT has blocks.0, blocks.1, ...")
    patches = tensors["patch_embed.proj.weight"]
    c = patches[0]
    shapes: dict[str, Shape] = {"patch_embed.proj.weight": patches, "patch_embed.proj.bias": (c,)}
    for block in range(len(blocks)):  # not up to the largest number: a gap must show up as missing
        layers = {"norm1": (c,), "attn.qkv": (c, 3 * c), "attn.proj": (c, c)}
        layers |= {"norm2": (c,), "mlp.fc1": (c, 4 * c), "mlp.fc2": (4 * c, c)}
        for name, shape in layers.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[-1:]
    kept = re.compile(r"blocks\.\d+\.attn\.rel_pos_[hw]\Z|norm\.(weight|bias)\Z|fpn2\.")
    return shapes | {name: shape for name, shape in tensors.items() if kept.match(name)}


def _fit(name: str, array: np.ndarray, wanted: Shape) -> np.ndarray:
    """Absolute positions as (1, cells, C), without the row of the class token."""
    if name != "pos_embed":
        return array
    array = array.reshape(1, -1, array.shape[-1])
    return array[:, 1:] if array.shape[1] == wanted[1] + 1 else array


WEIGHT_NAMES = WeightNames(
    "ViT",
    (_COMMON,),
    linear=r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight\Z",
    shapes=_shapes,
    optional=_OPTIONAL,
    fit=_fit,
)
