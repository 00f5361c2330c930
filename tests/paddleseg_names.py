"""UPerNet's tensors by the names that PaddleSeg gives them, for golden values and for the comparison with PaddleSeg."""

from __future__ import annotations

# Our names (beginning) -> PaddleSeg's
PADDLESEG_NAMES = {
    **{f"ppm.{i}": f"ppm.stages.{i}.1" for i in range(4)},
    "ppm_bottleneck": "ppm.conv_bn_relu2",
    **{f"laterals.{i}": f"lateral_convs.{i}" for i in range(3)},
    **{f"fpn_convs.{i}": f"fpn_convs.{i}" for i in range(3)},
    "fpn_bottleneck": "fpn_bottleneck",
    "classifier": "conv_seg",
    "aux.0": "aux_head.conv_bn_relu",
    "aux.2": "aux_head.conv",
}


def paddleseg_name(key):
    """PaddleSeg's name of one of UPerNet's tensors."""
    if key.startswith("input"):
        return key
    ours = next(name for name in PADDLESEG_NAMES if key.startswith(name + "."))
    rest = key[len(ours) + 1 :].replace("conv.", "_conv.").replace("bn.", "_batch_norm.")
    return f"{PADDLESEG_NAMES[ours]}.{rest}"
