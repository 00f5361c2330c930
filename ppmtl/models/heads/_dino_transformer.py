"""Encoder and decoder of DINO: deformable attention over several levels, boxes refined from layer to layer.

Source: Zhang et al., "DINO: DETR with Improved DeNoising Anchor Boxes", ICLR 2023; PaddleDetection 2.6 for the constants and
the names of the parameters. Without dropout, which its recipes set to 0. Boxes are cx, cy, w, h as shares of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppmtl.models.heads._deformable_attention import DeformableAttention, Grid
from ppmtl.models.heads._elementwise import elementwise
from ppmtl.models.layers import sigmoid

_TEMPERATURE = 10000.0  # of the sine embeddings, PaddleDetection's
GROUPS = 32  # of the input projections' group norm


def linear(inputs: int, outputs: int, *, xavier: bool = False, bias: float | None = None) -> nn.Linear:
    """A linear with weights uniform in 1 / root(inputs), or Xavier's, and biases alike, or ``bias``."""
    uniform = nn.initializer.Uniform(-(inputs**-0.5), inputs**-0.5)
    return nn.Linear(
        inputs,
        outputs,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.XavierUniform() if xavier else uniform),
        bias_attr=paddle.ParamAttr(initializer=uniform if bias is None else nn.initializer.Constant(bias)),
    )


class MLP(nn.Layer):
    """Linears with ReLU between them; ``widths`` from the input's to the output's. ``silent``: it starts with outputs of 0."""

    def __init__(self, *widths: int, xavier: bool = False, silent: bool = False) -> None:
        super().__init__()
        self.layers = nn.LayerList([linear(*pair, xavier=xavier) for pair in pairwise(widths)])
        if silent:
            for parameter in (self.layers[-1].weight, self.layers[-1].bias):
                parameter.set_value(paddle.zeros_like(parameter))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(..., last width) of (..., first width)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def input_projections(channels: list[int], levels: int, dim: int) -> nn.LayerList:
    """To ``dim`` channels: 1x1 for each feature; then 3x3 of stride 2, the first of the last feature."""
    layers, zeros, xavier = [], nn.initializer.Constant(0.0), nn.initializer.XavierUniform()
    for index in range(levels):
        shape = {"kernel_size": 1} if index < len(channels) else {"kernel_size": 3, "stride": 2, "padding": 1}
        width = channels[min(index, len(channels) - 1)] if index <= len(channels) else dim
        convolution = nn.Conv2D(width, dim, **shape, weight_attr=xavier, bias_attr=zeros)
        layers.append(nn.Sequential(("conv", convolution), ("norm", nn.GroupNorm(GROUPS, dim))))
    return nn.LayerList(layers)


def sine_embedding(x: paddle.Tensor, width: int) -> paddle.Tensor:
    """(..., width): sine and cosine in turn of angles ``x`` (...,) at falling frequencies."""
    step = paddle.arange(width // 2, dtype="int64").astype(x.dtype) * (2 * math.log(_TEMPERATURE) / width)
    angle = x.unsqueeze(-1) * paddle.exp(-step)
    return elementwise("sin", paddle.stack([angle, angle + math.pi / 2], axis=-1)).flatten(-2)


def cell_embedding(grid: Grid, dim: int) -> paddle.Tensor:
    """(N, dim), or (B, N, dim) where images were padded: where each cell of ``grid`` lies, y first."""
    side = (
        paddle.gather(grid.sides, grid.level)
        if grid.extents is None
        else paddle.gather(grid.extents, grid.level, axis=1)
    )
    angle = 2 * math.pi * grid.centres * side / (side + 1e-6)  # PaddleDetection's epsilon
    return paddle.concat([sine_embedding(angle[..., i], dim // 2) for i in (1, 0)], axis=-1)


class EncoderLayer(nn.Layer):
    """Every cell looks at places around itself in all levels; then a feed-forward net."""

    def __init__(self, dim: int, feedforward: int, attention: DeformableAttention) -> None:
        super().__init__()
        self.self_attn = attention
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.linear1, self.linear2 = linear(dim, feedforward, xavier=True), linear(feedforward, dim, xavier=True)

    def forward(self, x: paddle.Tensor, where: paddle.Tensor, grid: Grid) -> paddle.Tensor:
        """(B, N, C) of the same; ``where`` (N, C) or (B, N, C) is the cells' embedding."""
        centres = grid.centres.unsqueeze(0) if grid.extents is None else grid.centres
        x = self.norm1(x + self.self_attn(x + where, x, grid, centres))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class Encoder(nn.Layer):
    """Layers one after another."""

    def __init__(self, layers: Sequence[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.LayerList(list(layers))

    def forward(self, x: paddle.Tensor, where: paddle.Tensor, grid: Grid) -> paddle.Tensor:
        """(B, N, C) of the same."""
        for layer in self.layers:
            x = layer(x, where, grid)
        return x


class SelfAttention(nn.Layer):
    """Multi-head attention among the queries, with one matrix for query, key and value."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = self.create_parameter([dim, 3 * dim], default_initializer=nn.initializer.XavierUniform())
        self.in_proj_bias = self.create_parameter([3 * dim], is_bias=True)
        self.out_proj = linear(dim, dim, xavier=True, bias=0.0)

    def forward(self, x: paddle.Tensor, where: paddle.Tensor, hidden: paddle.Tensor | None) -> paddle.Tensor:
        """(B, Q, C); ``hidden`` (Q, Q) is added to the attention's logits: 0, or -1e9 where a query must not look."""
        dim = x.shape[2]
        placed = F.linear(x + where, self.in_proj_weight[:, : 2 * dim], self.in_proj_bias[: 2 * dim])
        value = self._by_head(F.linear(x, self.in_proj_weight[:, 2 * dim :], self.in_proj_bias[2 * dim :]))
        query, key = self._by_head(placed[:, :, :dim]), self._by_head(placed[:, :, dim:])
        logits = (query * query.shape[3] ** -0.5) @ key.transpose([0, 1, 3, 2])
        weights = F.softmax(logits if hidden is None else logits + hidden, axis=-1)
        return self.out_proj((weights @ value).transpose([0, 2, 1, 3]).flatten(2))

    def _by_head(self, x: paddle.Tensor) -> paddle.Tensor:
        return x.reshape([0, 0, self.num_heads, x.shape[2] // self.num_heads]).transpose([0, 2, 1, 3])


class DecoderLayer(nn.Layer):
    """Queries look at each other, then at places in and around their boxes; then a feed-forward net."""

    def __init__(self, dim: int, feedforward: int, num_heads: int, attention: DeformableAttention) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = SelfAttention(dim, num_heads), attention
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.linear1, self.linear2 = linear(dim, feedforward, xavier=True), linear(feedforward, dim, xavier=True)

    def forward(
        self,
        x: paddle.Tensor,
        where: paddle.Tensor,
        boxes: paddle.Tensor,
        memory: paddle.Tensor,
        grid: Grid,
        hidden: paddle.Tensor | None,
    ) -> paddle.Tensor:
        """(B, Q, C); ``where`` is the embedding of ``boxes`` (B, Q, 4)."""
        x = self.norm1(x + self.self_attn(x, where, hidden))
        reach = boxes[:, :, 2:] * (0.5 / self.cross_attn.points)  # the last point at the border of the box at the start
        x = self.norm2(x + self.cross_attn(x + where, memory, grid, boxes[:, :, :2], reach))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Decoder(nn.Layer):
    """Layers that refine boxes, with the norm that all of them share."""

    def __init__(self, dim: int, layers: Sequence[DecoderLayer]) -> None:
        super().__init__()
        self.layers, self.norm = nn.LayerList(list(layers)), nn.LayerNorm(dim)

    def forward(
        self,
        queries: paddle.Tensor,
        start: paddle.Tensor,
        memory: paddle.Tensor,
        grid: Grid,
        query_pos_head: nn.Layer,
        box_heads: Sequence[nn.Layer],
        hidden: paddle.Tensor | None = None,
    ) -> tuple[list[paddle.Tensor], list[paddle.Tensor]]:
        """What each layer says: its normalised queries (B, Q, C), and the logits of its boxes (B, Q, 4).

        Look forward twice: a layer's box starts from what the one before it said, and its loss reaches that layer too;
        the places that it looks at are constants.

        Args:
            queries: (B, Q, C).
            start: (B, Q, 4) logits of the boxes at the start.
            memory: (B, N, C), the encoder's cells of ``grid``.
            query_pos_head: makes queries' positions of the embedding of their boxes.
            box_heads: one per layer.
            hidden: see ``SelfAttention``.
        """
        outputs, boxes = [], []
        look, before = start, start
        for index in range(len(self.layers)):
            box = sigmoid(look)
            angles = box * (2 * math.pi)
            if grid.extents is not None:  # of the padded image, as in PaddleDetection and DINO's authors' code
                angles = angles * (grid.extents[:, :1] / grid.sides[0]).tile([1, 1, 2])
            embedded = [sine_embedding(angles[:, :, i], queries.shape[2] // 2) for i in (1, 0, 2, 3)]
            where = query_pos_head(paddle.concat(embedded, axis=-1))
            queries = self.layers[index](queries, where, box, memory, grid, hidden)
            outputs.append(self.norm(queries))
            boxes.append(box_heads[index](outputs[-1]) + before)
            if index + 1 < len(self.layers):
                before = box_heads[index](queries) + look
                look = before.detach() if paddle.in_dynamic_mode() else before
        return outputs, boxes
