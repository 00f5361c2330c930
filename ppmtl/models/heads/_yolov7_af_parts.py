"""What both anchor-free heads are made of: branches, the cells of their levels, boxes out of distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppmtl.models.layers import ConvBNSiLU

BINS = 16  # of the distribution over each side's distance, 0 to 15 cells


class Branch(nn.Layer):
    """Two 3x3 convolutions; the 1x1 ``output`` after them is called through its implicit knowledge."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, bias: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvBNSiLU(in_channels, hidden, 3), ConvBNSiLU(hidden, hidden, 3)
        bound = hidden**-0.5
        self.output = nn.Conv2D(
            hidden,
            out_channels,
            1,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)),
            bias_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(bias)),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv2(self.conv1(x))


@dataclass(frozen=True)
class Cells:
    """Every cell of every level, finest level first, row by row.

    Attributes:
        centres: (A, 2) float32 x and y in cells of the own level.
        strides: (A, 1) float32 pixels per cell.
    """

    centres: paddle.Tensor
    strides: paddle.Tensor


def decode_boxes(maps: paddle.Tensor, cells: Cells, bins: paddle.Tensor) -> paddle.Tensor:
    """(B, A, 4) xyxy pixels of the raw distributions (B, 4 * BINS, A): each distance is its distribution's mean."""
    shares = F.softmax(maps.reshape([0, 4, BINS, -1]), axis=2)
    distance = (shares * bins.reshape([1, 1, BINS, 1])).sum(axis=2).transpose([0, 2, 1])
    corners = [cells.centres - distance[:, :, :2], cells.centres + distance[:, :, 2:]]
    return paddle.concat(corners, axis=2) * cells.strides


def joined(maps: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """(B, channels, A) the cells of all levels."""
    return paddle.concat([level.flatten(2) for level in maps], axis=2)
