"""The plain vision transformer with windows, as in ViTDet; with its defaults the backbone of the challenge's baseline.

Source: Dosovitskiy et al., ICLR 2021; Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection",
ECCV 2022 (windows, global blocks, relative positions, maps from the last block); the baseline's constants in
reference/challenge.md section 4. Parameter names are timm's; outputs equal timm's (docs/parity.md).
"""

from __future__ import annotations

from typing import Annotated, Literal

import paddle
import paddle.nn.functional as F
from annotated_types import Ge, Interval
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from ppmtl.models.backbones._vit_weights import WEIGHT_NAMES
from ppmtl.models.backbones.convnext import drop_path_rates
from ppmtl.models.base import Backbone, Side
from ppmtl.models.layers import DropPath
from ppmtl.structures import FeatureSpec

Positive = Annotated[int, Ge(1)]
Index = Annotated[int, Ge(0)]

_ARCHS = {  # width, blocks, heads; timm's names
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
_PATCH = 16


class _Attention(nn.Layer):
    """Multi-head attention on a grid, with decomposed relative positions: one table for rows, one for columns."""

    def __init__(self, dim: int, num_heads: int, grid: int, *, scaled_positions: bool) -> None:
        super().__init__()
        self.num_heads, self.scaled_positions = num_heads, scaled_positions
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        shape, zeros = [2 * grid - 1, self.head_dim], nn.initializer.Constant(0.0)
        self.rel_pos_h = self.create_parameter(shape, default_initializer=zeros)
        self.rel_pos_w = self.create_parameter(shape, default_initializer=zeros)

    def forward(self, x: paddle.Tensor, height: Side, width: Side) -> paddle.Tensor:
        """(B, height, width, C) of the same."""
        heads, dim, cells = self.num_heads, self.head_dim, height * width
        qkv = self.qkv(x).reshape([-1, cells, 3, heads, dim]).transpose([2, 0, 3, 1, 4])
        query, key, value = qkv[0], qkv[1], qkv[2]  # (B, heads, cells, dim)
        grid = query.reshape([-1, heads, height, width, dim])
        scaled = grid * dim**-0.5
        by_row, by_column = self._positions(scaled if self.scaled_positions else grid, height, width)
        # q . k + row[q, row of k] + column[q, column of k] as one product: two sums over cells x cells would each be a
        # pass over the largest tensor of the net
        left = paddle.concat([scaled, by_row, by_column], axis=4).reshape([-1, heads, cells, dim + height + width])
        cell, dtype = paddle.arange(cells, dtype="int64"), x.dtype
        row = (cell.unsqueeze(1) // width == paddle.arange(height, dtype="int64")).astype(dtype)
        column = (cell.unsqueeze(1) % width == paddle.arange(width, dtype="int64")).astype(dtype)
        where = paddle.concat([row, column], axis=1) + paddle.zeros_like(key[:, :, :1, :1])
        weights = F.softmax(left @ paddle.concat([key, where], axis=3).transpose([0, 1, 3, 2]), axis=-1)
        return self.proj((weights @ value).transpose([0, 2, 1, 3]).reshape([-1, height, width, heads * dim]))

    def _positions(self, query: paddle.Tensor, height: Side, width: Side) -> tuple[paddle.Tensor, paddle.Tensor]:
        """What each query (B, heads, height, width, dim) adds for each row and for each column of keys, as its last axis.

        One product per row, and per column: Paddle 3.2.2 fails in backward where matmul broadcasts over a missing axis.
        """
        heads, dim = self.num_heads, self.head_dim
        by_row = query.transpose([2, 0, 1, 3, 4]).reshape([height, -1, dim]) @ _relative(self.rel_pos_h, height)
        by_column = query.transpose([3, 0, 1, 2, 4]).reshape([width, -1, dim]) @ _relative(self.rel_pos_w, width)
        return (
            by_row.reshape([height, -1, heads, width, height]).transpose([1, 2, 0, 3, 4]),
            by_column.reshape([width, -1, heads, height, width]).transpose([1, 2, 3, 0, 4]),
        )


def _relative(table: paddle.Tensor, length: Side) -> paddle.Tensor:
    """(length, dim, length): for query i and key j the row i - j + length - 1 of the table resized to 2 length - 1 rows.

    Linear, between half-pixel centres; of the right size the table comes back to the last bit. Written as a product with
    hat functions, so that the exported graph needs neither a resize nor a gather.
    """
    rows = table.shape[0]
    index = paddle.arange(length, dtype="int64").astype(table.dtype)
    last = index.max()  # and not the length itself, which is an int or a tensor of ints
    at = (index.unsqueeze(1) - index + last + 0.5) * rows / (2 * last + 1) - 0.5
    at = paddle.clip(at, 0.0, rows - 1.0)
    hats = F.relu(1 - paddle.abs(at.unsqueeze(2) - paddle.arange(rows, dtype="int64").astype(table.dtype)))
    # As one product of matrices: of a .json graph, Paddle Inference 3.2.2 with oneDNN computes (4, 4, 9) @ (9, 12) wrongly
    return (hats.reshape([-1, rows]) @ table).reshape([length, length, table.shape[1]]).transpose([0, 2, 1])


class _MLP(nn.Layer):
    """C -> 4C -> C with exact GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Layer):
    """Attention and MLP with pre-normalisation; ``window`` 0 = attention over the entire grid."""

    def __init__(self, dim: int, heads: int, window: int, grid: int, rate: float, *, scaled_positions: bool) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = (nn.LayerNorm(dim, epsilon=1e-6) for _ in range(2))
        self.attn = _Attention(dim, heads, window or grid, scaled_positions=scaled_positions)
        self.mlp = _MLP(dim)
        self.drop_path = DropPath(rate)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        height, width = _sides(x)
        y = self.norm1(x)
        y = self._windowed(y, height, width) if self.window else self.attn(y, height, width)
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _windowed(self, x: paddle.Tensor, height: Side, width: Side) -> paddle.Tensor:
        """Attention inside windows, the last ones filled up with zeros, which take part as in ViTDet."""
        side, channels = self.window, x.shape[3]
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        high, wide = rows * side, columns * side
        if paddle.in_dynamic_mode():
            x = F.pad(x, [0, wide - width, 0, high - height], data_format="NHWC")
        else:  # of a .json graph, oneDNN would pad other axes; the old format cannot pad by a number that it does not know
            x = paddle.concat([x, paddle.zeros_like(x[:, :1]).tile([1, side - 1, 1, 1])], axis=1)
            x = paddle.concat([x, paddle.zeros_like(x[:, :, :1]).tile([1, 1, side - 1, 1])], axis=2)[:, :high, :wide]
        x = x.reshape([-1, rows, side, columns, side, channels]).transpose([0, 1, 3, 2, 4, 5])
        x = self.attn(x.reshape([-1, side, side, channels]), side, side)
        x = x.reshape([-1, rows, columns, side, side, channels]).transpose([0, 1, 3, 2, 4, 5])
        return x.reshape([-1, high, wide, channels])[:, :height, :width]


class ViT(Backbone):
    """Maps "p3" to "p6" at strides 8 to 64 of the last block, and "tokens<i>": block i's output as a map of stride 16.

    The defaults are the baseline's ViT-B. The organisers state 92.81 M parameters; 4.72 M of them are "fpn1", a branch to
    stride 4 that nothing reads, which is left out here.

    Args:
        arch: width, blocks and heads by name.
        dim: width [channels], instead of the named one.
        depth: how many [blocks], instead of the named one.
        num_heads: of every attention [heads], instead of the named one.
        window: side of the windows [patches of 16 px]; 0 = all blocks are global (a plain ViT).
        global_blocks: which attend over the entire grid [block numbers] from 0; None = the last of each quarter: 2, 5, 8, 11
            of 12.
        tokens: those whose outputs are features [block numbers] from 0.
        drop_path_rate: [probability] of the last block; the others rise linearly from 0.
        relative_grid: side of the grid [patches of 16 px] that the global blocks' tables of relative positions are made
            for, 56 = 896 px; other grids get them interpolated. Memory of a global block grows with the square of the
            number of patches.
        position_grid: side of the grid [patches of 16 px] of absolute positions, added to the patches and interpolated to
            theirs: 14 for weights of 224 px. None = none, as in the baseline.
        scaled_positions: relative positions meet the query after its division by the root of its width, as in the
            baseline's code. False = before, as in ViTDet, whose weights need it.
        pretrained: a file or URL that training fills the backbone from on a fresh start (weights/pretrained.py).
        recompute: compute every block again in backward instead of keeping what is inside it.

    Raises:
        ValueError: if the heads do not divide the width, or a block is named that does not exist.
    """

    weight_names = WEIGHT_NAMES

    def __init__(
        self,
        *,
        arch: Literal["tiny", "small", "base", "large"] = "base",
        dim: Positive | None = None,
        depth: Positive | None = None,
        num_heads: Positive | None = None,
        window: Index = 14,
        global_blocks: tuple[Index, ...] | None = None,
        tokens: tuple[Index, ...] = (5, 7, 9, 11),
        drop_path_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.5,
        relative_grid: Positive = 56,
        position_grid: Positive | None = None,
        scaled_positions: bool = True,
        pretrained: str | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        named = _ARCHS[arch]
        dim, depth, heads = dim or named[0], depth or named[1], num_heads or named[2]
        everywhere = range(depth) if window == 0 else range(depth)[depth // 4 - 1 :: max(1, depth // 4)]
        attending = set(everywhere if global_blocks is None or window == 0 else global_blocks)
        if beyond := sorted({i for i in (*attending, *tokens) if i >= depth}):
            raise ValueError(
                f"ViT: global_blocks and tokens count blocks from 0; {beyond} are beyond the last, {depth - 1}"
            )
        if dim % heads:
            raise ValueError(f"ViT: {heads} heads do not divide the width {dim}")
        self.pretrained, self.recompute = pretrained, recompute
        self.depth, self.tokens, self.position_grid = depth, tuple(sorted(set(tokens))), position_grid
        self.patch_embed = nn.LayerDict({"proj": nn.Conv2D(3, dim, _PATCH, stride=_PATCH)})
        self.pos_embed = None
        if position_grid is not None:
            draw = nn.initializer.TruncatedNormal(std=0.02)
            self.pos_embed = self.create_parameter([1, position_grid**2, dim], default_initializer=draw)
        self.blocks = nn.LayerList(
            _Block(dim, heads, 0 if i in attending else window, relative_grid, rate, scaled_positions=scaled_positions)
            for i, rate in enumerate(drop_path_rates(drop_path_rate, depth))
        )
        self.norm = nn.LayerNorm(dim, epsilon=1e-6)
        self.fpn2 = nn.Sequential(nn.Conv2DTranspose(dim, dim, 2, stride=2))  # the baseline's name
        strides = {"p3": 8, **{f"tokens{i}": 16 for i in self.tokens}, "p4": 16, "p5": 32, "p6": 64}
        self.out_specs = {name: FeatureSpec(dim, stride) for name, stride in strides.items()}
        self.num_depths = 1 + depth
        self.apply(_initialise)

    def forward(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """The maps of ``out_specs``, (B, C, H_i, W_i), finest first, of ``x``: (B, 3, H, W) normalised float32.

        A size that is no multiple of 16 loses its last rows and columns. Stride 64 rounds up, as in the baseline.

        Raises:
            ValueError: if a side is below 32 pixels (not checked while a graph is exported: sizes are unknown then).
        """
        if paddle.in_dynamic_mode() and min(x.shape[2:]) < 2 * _PATCH:
            raise ValueError(
                f"ViT needs sides of at least {2 * _PATCH} px, got {x.shape[2]} x {x.shape[3]} (H x W); enlarge or pad the "
                "image"
            )
        x = self._embed(x)
        tokens = {}
        for index in range(self.depth):
            x = self._block(index, x)
            if index in self.tokens:
                tokens[f"tokens{index}"] = x.transpose([0, 3, 1, 2])
        p4 = self.norm(x).transpose([0, 3, 1, 2])
        p5 = F.max_pool2d(p4, 2, 2)
        p6 = F.max_pool2d(p5, 1, 2)
        return {"p3": self.fpn2(p4), **tokens, "p4": p4, "p5": p5, "p6": p6}

    def _embed(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, H / 16, W / 16, C): the patches, with absolute positions if there are any."""
        x = self.patch_embed["proj"](x).transpose([0, 2, 3, 1])
        if self.pos_embed is None:
            return x
        grid = self.position_grid
        positions = self.pos_embed.reshape([1, grid, grid, -1])
        height, width = _sides(x)
        if not paddle.in_dynamic_mode() or (height, width) != (grid, grid):
            positions = F.interpolate(positions.transpose([0, 3, 1, 2]), size=[height, width], mode="bicubic")
            positions = positions.transpose([0, 2, 3, 1])
        return x + positions

    def _block(self, index: int, x: paddle.Tensor) -> paddle.Tensor:
        block = self.blocks[index]
        # Without a gradient on x, all before is frozen (or nothing is trained): Paddle would warn at every call
        if not (self.recompute and self.training) or x.stop_gradient:
            return block(x)
        return recompute(block, x, use_reentrant=False)

    def depth_of(self, name: str) -> int:
        """How many blocks deep a parameter ("blocks.3.attn.qkv.weight") lies: 0 for patches and positions.

        The final norm and the stride-8 map count with the last block.

        Raises:
            ValueError: if it is none of this backbone's.
        """
        kind, *rest = name.split(".")
        if kind in ("patch_embed", "pos_embed"):
            return 0
        if kind == "blocks":
            return int(rest[0]) + 1
        if kind in ("norm", "fpn2"):
            return self.depth
        raise ValueError(f"ViT has no parameter {name!r}")


def _sides(x: paddle.Tensor) -> tuple[Side, Side]:
    """(H, W) of (B, H, W, C); tensors while a graph is exported, so that one file serves every size."""
    shape = x.shape if paddle.in_dynamic_mode() else paddle.shape(x)
    return shape[1], shape[2]


def _initialise(layer: nn.Layer) -> None:
    """Linears with std .02, their biases 0; convolutions as Paddle draws them. Source: the baseline's code."""
    if isinstance(layer, nn.Linear):
        nn.initializer.TruncatedNormal(std=0.02)(layer.weight)
        nn.initializer.Constant(0.0)(layer.bias)
