"""Multi-scale deformable attention in plain operators: every query looks at a few points of every level.

Source: Zhu et al., "Deformable DETR", ICLR 2021, section 4.1; the same numbers as PaddleDetection's (docs/parity.md).
Gathered rows instead of ``F.grid_sample``: half its time on CPU (608 px, one layer, forward and backward: 1.4 against 2.7 s
on one core) for twice its memory, which ``recompute`` gives back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.distributed.fleet.utils import recompute


@dataclass(frozen=True)
class Grid:
    """The cells of several feature maps in one row, finest map first. Tensors, so that a graph serves every size.

    float32 whatever the maps are: half a cell of 2048 px has no place in float16. Where images were padded, shares are
    those of the image without its padding.

    Attributes:
        centres: (N, 2) float32 x and y of the cells as shares of the image; (B, N, 2) where images were padded.
        sides: (L, 2) float32 columns and rows of each map.
        starts: (L,) int64 where each map begins.
        level: (N,) int64 the map of each cell.
        extents: (B, L, 2) float32 columns and rows of each map that are not padding; None = nothing was padded.
        inside: (B, N, 1) float32, 0 for the cells of padding; None likewise.
    """

    centres: paddle.Tensor
    sides: paddle.Tensor
    starts: paddle.Tensor
    level: paddle.Tensor
    extents: paddle.Tensor | None = None
    inside: paddle.Tensor | None = None

    @classmethod
    def of(cls, maps: Sequence[paddle.Tensor], extents: paddle.Tensor | None = None) -> Grid:
        """The grid of maps (B, C, h, w); ``extents`` (B, L, 2) float32, see there."""
        centres, sides, levels, counts, inside = [], [], [], [paddle.zeros([1], "int64")], []
        for index, one in enumerate(maps):
            size = paddle.cast(paddle.shape(one)[2:], "int64")
            cell = paddle.arange(size[0] * size[1], dtype="int64")
            column_row = paddle.stack([cell % size[1], cell // size[1]], axis=1)
            side = paddle.cast(paddle.stack([size[1], size[0]]), "float32")
            extent = side if extents is None else extents[:, index : index + 1]
            centres.append((paddle.cast(column_row, "float32") + 0.5) / extent)
            inside.append(centres[-1] < 1)
            sides.append(side)
            levels.append(cell * 0 + index)
            counts.append((size[0] * size[1]).reshape([1]))
        starts = paddle.cumsum(paddle.concat(counts[:-1]))
        if extents is None:
            return cls(paddle.concat(centres), paddle.stack(sides), starts, paddle.concat(levels))
        real = paddle.concat(inside, axis=1).all(axis=2, keepdim=True).astype("float32")
        return cls(paddle.concat(centres, axis=1), paddle.stack(sides), starts, paddle.concat(levels), extents, real)


class DeformableAttention(nn.Layer):
    """Each head of each query mixes ``levels`` x ``points`` places, which the query chooses around its reference.

    Args:
        dim: width of queries and values.
        num_heads: share it.
        levels: maps.
        points: places per head and map.
        recompute: gather again in backward instead of keeping what was gathered.
    """

    def __init__(self, dim: int, num_heads: int, levels: int, points: int, *, recompute: bool = False) -> None:
        super().__init__()
        self.num_heads, self.levels, self.points, self.recompute = num_heads, levels, points, recompute
        places = num_heads * levels * points
        zeros, xavier = nn.initializer.Constant(0.0), nn.initializer.XavierUniform()
        outwards = nn.initializer.Assign(_outwards(num_heads, levels, points))
        self.sampling_offsets = nn.Linear(dim, 2 * places, weight_attr=zeros, bias_attr=outwards)
        self.attention_weights = nn.Linear(dim, places, weight_attr=zeros, bias_attr=zeros)
        self.value_proj = nn.Linear(dim, dim, weight_attr=xavier, bias_attr=zeros)
        self.output_proj = nn.Linear(dim, dim, weight_attr=xavier, bias_attr=zeros)

    def forward(
        self,
        query: paddle.Tensor,
        value: paddle.Tensor,
        grid: Grid,
        centre: paddle.Tensor,
        reach: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """(B, Q, C).

        Args:
            query: (B, Q, C).
            value: (B, N, C), the cells of ``grid``.
            centre: (B or 1, Q, 2) x and y of the references as shares of the image.
            reach: (B, Q, 2) how far an offset of 1 goes, in shares of the image; None = one cell of each map.
        """
        batch = query.shape[0] if paddle.in_dynamic_mode() else paddle.shape(query)[0]
        places = [batch, -1, self.num_heads, self.levels, self.points]
        offsets = self.sampling_offsets(query).reshape([*places, 2])
        weights = F.softmax(self.attention_weights(query).reshape([*places[:3], self.levels * self.points]))
        # In cells, the first centre at 0. No reciprocal of the sides, see _elementwise.py
        scale = grid.sides.unsqueeze(1) if grid.extents is None else grid.extents.unsqueeze([1, 2, 4])  # (..., L, 1, 2)
        at = centre.unsqueeze([2, 3, 4]) * scale - 0.5
        at = at + (offsets if reach is None else offsets * (reach.unsqueeze([2, 3, 4]) * scale))
        value = self.value_proj(value) if grid.inside is None else self.value_proj(value) * grid.inside
        value = value.reshape([batch, -1, self.num_heads, value.shape[2] // self.num_heads])
        given = (value, at[..., 0], at[..., 1], weights.reshape(places), grid.sides, grid.starts)
        mixed = recompute(_mix, *given) if self.recompute and self.training else _mix(*given)
        return self.output_proj(mixed.reshape([batch, -1, query.shape[2]]))


def _outwards(num_heads: int, levels: int, points: int) -> np.ndarray:
    """The offsets at the start: each head looks into a direction of its own, each point one cell further."""
    angles = np.arange(num_heads) * (2 * math.pi / num_heads)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    offsets = directions[:, None, None] * np.arange(1, points + 1)[:, None]
    return np.broadcast_to(offsets, (num_heads, levels, points, 2)).astype(np.float32).reshape(-1)


def _mix(
    value: paddle.Tensor,
    x: paddle.Tensor,
    y: paddle.Tensor,
    weights: paddle.Tensor,
    sides: paddle.Tensor,
    starts: paddle.Tensor,
) -> paddle.Tensor:
    """The weighted sum of ``value`` (B, N, M, c) between the four cells around each place; nothing is outside the maps.

    ``x``, ``y`` and ``weights`` are (B, Q, M, L, P), in cells of their level. Returns (B * Q * M, 1, c).
    """
    batch, cells, heads, width = value.shape if paddle.in_dynamic_mode() else _dynamic_shape(value)
    columns, rows, start = sides[:, :1], sides[:, 1:], starts.unsqueeze(1).astype(x.dtype)
    left, top = _floor(x), _floor(y)
    right_share, lower_share = x - left, y - top
    places, shares = [], []
    for down in (0, 1):
        for along in (0, 1):
            column, row = left + along, top + down
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            share = (right_share if along else 1 - right_share) * (lower_share if down else 1 - lower_share)
            shares.append(share * weights * inside.astype(share.dtype))
            places.append(paddle.where(inside, row * columns + column, paddle.zeros_like(row)) + start)
    # (B, Q, M, 4 * L * P); whole numbers, exact below 2^24
    place = paddle.concat([cell.flatten(3) for cell in places], axis=3).astype("int64")
    image = paddle.arange(batch, dtype="int64").reshape([-1, 1, 1, 1])
    # Not (a + b) * heads: Paddle Inference 3.2.2 with oneDNN joins the two into one operator, wrong for whole numbers
    index = place * heads + (image * (cells * heads) + paddle.arange(heads, dtype="int64").unsqueeze(1))
    share = paddle.concat([s.flatten(3) for s in shares], axis=3)
    count = share.shape[3]
    picked = paddle.gather(value.reshape([-1, width]), index.flatten()).reshape([-1, count, width])
    return share.reshape([-1, 1, count]) @ picked


def _floor(x: paddle.Tensor) -> paddle.Tensor:
    # Not paddle.floor: as _elementwise.py says of sin, it would be written over x, which is needed below
    whole = x.astype("int64").astype(x.dtype)
    return whole - (whole > x).astype(x.dtype)


def _dynamic_shape(value: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, int, int]:
    shape = paddle.cast(paddle.shape(value), "int64")
    return shape[0], shape[1], value.shape[2], value.shape[3]
