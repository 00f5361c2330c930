"""CSP-PAN: the three-level neck of the YOLOv5 family as the paper's toolkit wires it.

Source: project reference "model.md" section 4 (wiring, parameter counts, initialisation). Parameter names follow the
PaddleDetection family (``lateral_convs``, ``fpn_blocks``, ``downsample_convs``, ``pan_blocks``; index 0 = built
first), so that its weights load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import paddle
import paddle.nn.functional as F
from annotated_types import Gt, Interval
from paddle import nn

from ppmtl.models.layers import ConvBNSiLU
from ppmtl.structures import FeatureSpec

BOTTLENECKS_AT_FULL_DEPTH = 3


class Bottleneck(nn.Layer):
    """1x1 then 3x3 convolution at constant width; this neck never adds the input back."""

    def __init__(self, channels: int, **norm: Any) -> None:
        super().__init__()
        self.conv1 = ConvBNSiLU(channels, channels, 1, **norm)
        self.conv2 = ConvBNSiLU(channels, channels, 3, **norm)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """A tensor shaped like ``x``."""
        return self.conv2(self.conv1(x))


class CSPLayer(nn.Layer):
    """Two half-width branches, one of them through bottlenecks, joined by a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, **norm: Any) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvBNSiLU(in_channels, hidden, 1, **norm)
        self.conv2 = ConvBNSiLU(in_channels, hidden, 1, **norm)
        self.conv3 = ConvBNSiLU(2 * hidden, out_channels, 1, **norm)
        self.bottlenecks = nn.Sequential(*(Bottleneck(hidden, **norm) for _ in range(depth)))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, out_channels, H, W)."""
        return self.conv3(paddle.concat([self.bottlenecks(self.conv1(x)), self.conv2(x)], axis=1))


class YOLOCSPPAN(nn.Layer):
    """Top-down then bottom-up fusion of three levels, each half the size of the one before.

    Args:
        in_specs: three levels, fine to coarse, every stride twice the one before (8, 16, 32).
        depth_multiplier: [factor] on the number of bottlenecks; 1.0 = three in each CSP block; .67 = two, .33 = one.
        channels: None keeps the input channels; three numbers [channels] first bring each level to that width by a 1x1
            ConvBNSiLU.
        bn_epsilon: added to the [variance] in every batch norm. Source: the toolkit's trainer
            sets 1e-3 / .97 for its YOLO models.
        bn_momentum: in Paddle's sense, the [share] of the old running value that is kept.

    Raises:
        ValueError: not three levels, strides that do not double, or odd or non-positive channels.
    """

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        *,
        depth_multiplier: Annotated[float, Gt(0)] = 1.0,
        channels: tuple[int, int, int] | None = None,
        bn_epsilon: Annotated[float, Gt(0)] = 1e-3,
        bn_momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.97,
    ) -> None:
        super().__init__()
        strides = [spec.stride for spec in in_specs]
        if len(strides) != 3 or strides[1] != 2 * strides[0] or strides[2] != 2 * strides[1]:
            raise ValueError(f"YOLOCSPPAN needs three levels whose strides double (8, 16, 32), got strides {strides}")
        inputs = [spec.channels for spec in in_specs]
        widths = inputs if channels is None else list(channels)
        if any(width < 2 or width % 2 for width in widths):
            raise ValueError(f"YOLOCSPPAN halves every level's channels, so they must be even and > 0, got {widths}")
        self.out_specs = tuple(FeatureSpec(width, stride) for width, stride in zip(widths, strides, strict=True))

        norm: dict[str, Any] = {"epsilon": bn_epsilon, "momentum": bn_momentum}
        depth = max(round(BOTTLENECKS_AT_FULL_DEPTH * depth_multiplier), 1)
        reduces = [] if channels is None else [ConvBNSiLU(a, b, 1, **norm) for a, b in zip(inputs, widths, strict=True)]
        self.reduce_convs = nn.LayerList(reduces)
        self.lateral_convs = nn.LayerList([ConvBNSiLU(widths[i], widths[i - 1], 1, **norm) for i in (2, 1)])
        self.fpn_blocks = nn.LayerList([CSPLayer(2 * widths[i - 1], widths[i - 1], depth, **norm) for i in (2, 1)])
        self.downsample_convs = nn.LayerList([ConvBNSiLU(widths[i], widths[i], 3, stride=2, **norm) for i in (0, 1)])
        self.pan_blocks = nn.LayerList([CSPLayer(2 * widths[i], widths[i + 1], depth, **norm) for i in (0, 1)])

    def forward(self, features: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        """Three levels (B, out_specs[i].channels, H_i, W_i), fine to coarse, the sizes as they came.

        Raises:
            ValueError: if a level is not exactly half the one before (not checked while a graph is being exported).
        """
        sizes = [tuple(feature.shape[2:]) for feature in features]
        if paddle.in_dynamic_mode() and any(fine != (2 * h, 2 * w) for fine, (h, w) in pairwise(sizes)):
            raise ValueError(
                f"YOLOCSPPAN needs levels that halve exactly, got (H, W) = {sizes}; pad them first (the YOLOv5 head "
                "does) or use an input whose sides are multiples of the coarsest stride"
            )
        levels = list(features)
        for index, reduce in enumerate(self.reduce_convs):
            levels[index] = reduce(levels[index])
        fine, middle, coarse = levels

        lateral_coarse = self.lateral_convs[0](coarse)
        middle = self.fpn_blocks[0](paddle.concat([_upsample(lateral_coarse), middle], axis=1))
        # The laterals, not the CSP outputs, come back on the way down.
        lateral_middle = self.lateral_convs[1](middle)
        fine = self.fpn_blocks[1](paddle.concat([_upsample(lateral_middle), fine], axis=1))

        middle = self.pan_blocks[0](paddle.concat([self.downsample_convs[0](fine), lateral_middle], axis=1))
        coarse = self.pan_blocks[1](paddle.concat([self.downsample_convs[1](middle), lateral_coarse], axis=1))
        return [fine, middle, coarse]


def _upsample(x: paddle.Tensor) -> paddle.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
