"""YOLOv7's ELAN backbone with its neck, SPPCSPC and PAN, as one shared backbone: the anchor-free variant.

Source: wiring and widths of the YOLOv7-AF configuration in reference/yolor_mtl.md section 1.2; outputs equal its
reference's on golden yolor/elan_block.json, sppcspc.json and yolov7_af_body.json.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import paddle
import paddle.nn.functional as F
from annotated_types import Gt
from paddle import nn

from ppmtl.models.base import Backbone
from ppmtl.models.layers import ConvBNSiLU
from ppmtl.structures import FeatureSpec

_NAMES, _STRIDES = ("p3", "p4", "p5"), (8, 16, 32)


class _ELAN(nn.Layer):
    """Two 1x1 branches; the second goes on through 3x3 convolutions; some are joined, newest first, and fused by a 1x1.

    Args:
        split: width of both 1x1 branches.
        inner: width of the 3x3 convolutions.
        depth: how many of them.
        every: of the outputs of the second branch, one in so many is joined, counted back from the last: 2 in the
            backbone, 1 in the neck (ELAN-W).
    """

    def __init__(self, in_channels: int, split: int, inner: int, out_channels: int, *, depth: int, every: int) -> None:
        super().__init__()
        self.side = ConvBNSiLU(in_channels, split, 1)
        self.main = ConvBNSiLU(in_channels, split, 1)
        self.convs = nn.LayerList([ConvBNSiLU(inner if i else split, inner, 3) for i in range(depth)])
        self.every = every
        self.fuse = ConvBNSiLU(2 * split + depth // every * inner, out_channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fuse(paddle.concat(self.branches(x), axis=1))

    def branches(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """What is joined, newest first: the order that the reference's weights expect."""
        outputs = [self.main(x)]
        for conv in self.convs:
            outputs.append(conv(outputs[-1]))
        return [*outputs[:: -self.every], self.side(x)]


class _Down(nn.Layer):
    """Halves the size twice over: a strided 3x3 convolution, then a pooled branch, joined in this order."""

    def __init__(self, in_channels: int, branch: int) -> None:
        super().__init__()
        self.pooled = ConvBNSiLU(in_channels, branch, 1)
        self.reduce = ConvBNSiLU(in_channels, branch, 1)
        self.strided = ConvBNSiLU(branch, branch, 3, stride=2)

    def forward(self, x: paddle.Tensor, *joined: paddle.Tensor) -> paddle.Tensor:
        return paddle.concat([self.strided(self.reduce(x)), self.pooled(F.max_pool2d(x, 2, 2)), *joined], axis=1)


class _SPPCSPC(nn.Layer):
    """Spatial pyramid pooling with windows of 5, 9 and 13 in one of two branches."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            ConvBNSiLU(in_channels, out_channels, 1),
            ConvBNSiLU(out_channels, out_channels, 3),
            ConvBNSiLU(out_channels, out_channels, 1),
        )
        self.after = nn.Sequential(
            ConvBNSiLU(4 * out_channels, out_channels, 1), ConvBNSiLU(out_channels, out_channels, 3)
        )
        self.side = ConvBNSiLU(in_channels, out_channels, 1)
        self.fuse = ConvBNSiLU(2 * out_channels, out_channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        # A window of 9 is one of 5 after one of 5, and 13 another: a third of the comparisons, the same numbers
        pooled = [self.before(x)]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        return self.fuse(paddle.concat([self.after(paddle.concat(pooled, axis=1)), self.side(x)], axis=1))


class YOLOv7AF(Backbone):
    """Three feature maps of one pyramid, "p3" to "p5", at strides 8, 16 and 32; 36.5 M parameters at full size.

    Sides that are no multiples of 32 are padded at the right and bottom inside, and the maps cut to the whole cells of
    the image (90 px give 11, 5 and 2 rows).

    Args:
        depth_multiplier: [factor] on depths; 1 = four 3x3 convolutions in every ELAN block; .5 = two.
        width_multiplier: [factor] on widths; 1 = maps of 256, 512 and 1024 channels. Rounded up to multiples of 8.
    """

    def __init__(
        self,
        *,
        depth_multiplier: Annotated[float, Gt(0)] = 1.0,
        width_multiplier: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__()
        c32, c64, c128, c256, c512, c1024 = (
            math.ceil(width * width_multiplier / 8) * 8 for width in (32, 64, 128, 256, 512, 1024)
        )
        pairs = 2 * max(1, round(2 * depth_multiplier))
        wide = max(1, round(4 * depth_multiplier))

        def elan(in_channels: int, split: int, out_channels: int) -> _ELAN:
            return _ELAN(in_channels, split, split, out_channels, depth=pairs, every=2)

        def elan_wide(in_channels: int, channels: int, inner: int) -> _ELAN:
            return _ELAN(in_channels, channels, inner, channels, depth=wide, every=1)

        self.stem = nn.Sequential(
            ConvBNSiLU(3, c32, 3),
            ConvBNSiLU(c32, c64, 3, stride=2),
            ConvBNSiLU(c64, c64, 3),
            ConvBNSiLU(c64, c128, 3, stride=2),
        )
        self.stage2 = elan(c128, c64, c256)
        self.stage3 = nn.Sequential(_Down(c256, c128), elan(2 * c128, c128, c512))
        self.stage4 = nn.Sequential(_Down(c512, c256), elan(2 * c256, c256, c1024))
        self.stage5 = nn.Sequential(_Down(c1024, c512), elan(2 * c512, c256, c1024))
        self.spp = _SPPCSPC(c1024, c512)
        self.lateral4, self.lateral3 = ConvBNSiLU(c1024, c256, 1), ConvBNSiLU(c512, c128, 1)
        self.reduce5, self.reduce4 = ConvBNSiLU(c512, c256, 1), ConvBNSiLU(c256, c128, 1)
        self.top_down4, self.top_down3 = elan_wide(2 * c256, c256, c128), elan_wide(2 * c128, c128, c64)
        self.down4, self.down5 = _Down(c128, c128), _Down(c256, c256)
        self.bottom_up4 = elan_wide(2 * c128 + c256, c256, c128)
        self.bottom_up5 = elan_wide(2 * c256 + c512, c512, c256)
        self.outputs = nn.LayerList([ConvBNSiLU(c128, c256, 3), ConvBNSiLU(c256, c512, 3), ConvBNSiLU(c512, c1024, 3)])
        widths = (c256, c512, c1024)
        self.out_specs = {name: FeatureSpec(*spec) for name, *spec in zip(_NAMES, widths, _STRIDES, strict=True)}

    def forward(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Three maps (B, C_i, H_i, W_i), finest first, of ``x``: (B, 3, H, W) normalised float32.

        Raises:
            ValueError: if a side is below 32 pixels (not checked while a graph is exported: sizes are unknown then).
        """
        if paddle.in_dynamic_mode() and min(x.shape[2:]) < _STRIDES[-1]:
            raise ValueError(
                f"YOLOv7AF halves its input five times: both sides must be at least {_STRIDES[-1]} px, got "
                f"{x.shape[2]} x {x.shape[3]} (H x W); enlarge or pad the image"
            )
        size = x.shape[2:] if paddle.in_dynamic_mode() else paddle.cast(paddle.shape(x)[2:], "int32")
        levels = self._pyramid(self._backbone(_padded(x, size)))
        outputs = [conv(levels[i]) for i, conv in enumerate(self.outputs)]
        # Indices, not zip(strict=True): Paddle's exporter rewrites zip and does not know the keyword.
        cut = [y[:, :, : size[0] // _STRIDES[i], : size[1] // _STRIDES[i]] for i, y in enumerate(outputs)]
        return {name: cut[i] for i, name in enumerate(_NAMES)}

    def _backbone(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """The maps of stride 8, 16 and 32 before the neck."""
        x = self.stage2(self.stem(x))
        levels = []
        for stage in (self.stage3, self.stage4, self.stage5):
            x = stage(x)
            levels.append(x)
        return levels

    def _pyramid(self, levels: list[paddle.Tensor]) -> list[paddle.Tensor]:
        """The neck: top-down, then bottom-up."""
        fine, middle, coarse = levels
        coarse = self.spp(coarse)
        middle = self.top_down4(paddle.concat([self.lateral4(middle), _upsample(self.reduce5(coarse))], axis=1))
        fine = self.top_down3(paddle.concat([self.lateral3(fine), _upsample(self.reduce4(middle))], axis=1))
        middle = self.bottom_up4(self.down4(fine, middle))
        coarse = self.bottom_up5(self.down5(middle, coarse))
        return [fine, middle, coarse]


def _upsample(x: paddle.Tensor) -> paddle.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _padded(x: paddle.Tensor, size: Any) -> paddle.Tensor:  # a list, or a tensor while a graph is exported
    """``x`` with zeros at right and bottom up to multiples of 32: everything halves exactly inside."""
    if paddle.in_dynamic_mode():
        extra = [-side % _STRIDES[-1] for side in size]
        return F.pad(x, [0, extra[1], 0, extra[0]]) if any(extra) else x
    extra = (size + (_STRIDES[-1] - 1)) // _STRIDES[-1] * _STRIDES[-1] - size
    zero = paddle.zeros([1], "int32")
    return F.pad(x, paddle.concat([zero, extra[1:2], zero, extra[0:1]]))
