"""ConvNeXt, the backbone of the paper (large) and its smaller and larger relatives.

Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022; constants in reference/model.md section 1. Parameter names are
those of facebook's and PaddleClas's checkpoints; outputs equal timm's on golden convnext_tiny_forward.json.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import paddle
import paddle.nn.functional as F
from annotated_types import Gt, Interval
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from ppmtl.config import ConfigError
from ppmtl.models.backbones._convnext_weights import WEIGHT_NAMES
from ppmtl.models.base import Backbone
from ppmtl.models.layers import ChannelLayerNorm, DropPath, has_numba, trains_with_numba
from ppmtl.structures import FeatureSpec

Arch = Literal["atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge"]
Four = tuple[int, int, int, int]

_ARCHS: dict[str, tuple[Four, Four]] = {  # depths, dims; atto to nano as in timm, the rest as in the paper
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
_LEVELS, _STRIDES = ("c2", "c3", "c4", "c5"), (4, 8, 16, 32)


class _Block(nn.Layer):
    """Depthwise 7x7, LayerNorm, C -> 4C -> C with exact GELU, layer scale, drop-path, residual."""

    def __init__(self, channels: int, kernel_size: int, drop_path_rate: float, layer_scale_init: float | None) -> None:
        super().__init__()
        self.dwconv = nn.Conv2D(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, epsilon=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = None
        if layer_scale_init is not None:
            scale = nn.initializer.Constant(layer_scale_init)
            self.gamma = self.create_parameter([channels], default_initializer=scale)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        # Channels last between the transposes: nn.Linear runs at GEMM speed on CPU, a 1x1 convolution at a third of it
        y = self.dwconv(x).transpose([0, 2, 3, 1])
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))
        if self.gamma is not None:
            y = y * self.gamma
        return x + self.drop_path(y.transpose([0, 3, 1, 2]))

    def fold_for_inference(self) -> None:
        """Moves layer scale into the second linear layer."""
        if self.gamma is not None:
            self.pwconv2.weight.set_value(self.pwconv2.weight * self.gamma)
            self.pwconv2.bias.set_value(self.pwconv2.bias * self.gamma)
            self.gamma = None


class _ConvolutionBlock(nn.Layer):
    """A block whose linears are 1x1 convolutions with the same numbers; inference only."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        block.fold_for_inference()
        self.dwconv, self.norm = block.dwconv, block.norm
        self.pwconv1, self.pwconv2 = (_as_convolution(linear) for linear in (block.pwconv1, block.pwconv2))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.norm(self.dwconv(x).transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])
        return x + self.pwconv2(F.gelu(self.pwconv1(y)))


def _as_convolution(linear: nn.Linear) -> nn.Conv2D:
    weight = linear.weight.numpy().T[:, :, None, None]  # (in, out) -> (out, in, 1, 1)
    assign = nn.initializer.Assign
    return nn.Conv2D(
        weight.shape[1],
        weight.shape[0],
        1,
        weight_attr=paddle.ParamAttr(initializer=assign(weight)),
        bias_attr=paddle.ParamAttr(initializer=assign(linear.bias.numpy())),
    )


class ConvNeXt(Backbone):
    """Four feature maps, "c2" to "c5", at strides 4, 8, 16 and 32.

    Args:
        arch: depths and widths by name.
        depths: of the four stages [blocks], instead of the named ones.
        dims: of the four stages [channels], instead of the named ones.
        kernel_size: of the depthwise convolutions [cells]. 7 is ConvNeXt. On inputs of 64 px most of a 7x7 window is padding,
            and Paddle's CPU kernel spends a third of a small net's training time on it: 3 suits tiny nets on CPU.
        drop_path_rate: [probability] of dropping the last block; the others rise linearly from 0. The paper is
            silent; dense tasks use .4.
        layer_scale_init: [factor] on what a block adds; 1e-6 for pretrained weights. From scratch use 1.0: with
            1e-6 every block starts as the identity and a short training barely moves it. None = no layer scale.
        init: of convolutions and linears. "trunc_normal" (std .02) is facebook's, and right when weights are loaded anyway;
            "fan_in" (std 1 / sqrt(fan-in)) keeps small nets trained from scratch from starting as almost nothing: .02 is
            far below it at widths of 32.
        output_norm: one LayerNorm per returned level; without it a pretrained net's levels differ widely in scale.
        pretrained: a file or URL that training fills the backbone from on a fresh start (weights/pretrained.py). Only
            kept here: evaluation, export and resuming have their weights from a checkpoint.
        recompute: compute every block again in backward instead of keeping what is inside it. Same gradients to the last
            bit; in training only. Measured on CPU (tiny, 256 px, batch 4, one thread): 1061 instead of 1734 MB for 24 %
            more time.
        kernels: what training computes with on CPU in float32: Paddle's operators, or numba's kernels for all of a block but
            its matrix products (same gradients to about 1e-6; measured in docs/benchmarks.md). "auto" takes numba's where
            it is installed. Evaluation, export and GPUs always take Paddle's, and so does a pass that several tasks' gradients
            are taken from one by one.
    """

    weight_names = WEIGHT_NAMES

    def __init__(
        self,
        *,
        arch: Arch = "large",
        depths: Four | None = None,
        dims: Four | None = None,
        kernel_size: Literal[3, 5, 7] = 7,
        drop_path_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.4,
        layer_scale_init: Annotated[float, Gt(0)] | None = 1e-6,
        init: Literal["trunc_normal", "fan_in"] = "trunc_normal",
        output_norm: bool = True,
        pretrained: str | None = None,
        recompute: bool = False,
        kernels: Literal["auto", "paddle", "numba"] = "auto",
    ) -> None:
        super().__init__()
        self.pretrained, self.recompute, self.kernels = pretrained, recompute, kernels
        depths, dims = depths or _ARCHS[arch][0], dims or _ARCHS[arch][1]
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.downsample_layers = nn.LayerList()
        self.stages = nn.LayerList()
        for index, (depth, channels) in enumerate(zip(depths, dims, strict=True)):
            if index == 0:
                layers = [nn.Conv2D(3, channels, 4, stride=4), ChannelLayerNorm(channels)]
            else:
                layers = [ChannelLayerNorm(dims[index - 1]), nn.Conv2D(dims[index - 1], channels, 2, stride=2)]
            self.downsample_layers.append(nn.Sequential(*layers))
            self.stages.append(
                nn.Sequential(*[_Block(channels, kernel_size, next(rates), layer_scale_init) for _ in range(depth)])
            )
        self.output_norm = output_norm
        for index, channels in enumerate(dims if output_norm else ()):
            self.add_sublayer(f"norm{index}", ChannelLayerNorm(channels))
        self.out_specs = {name: FeatureSpec(*spec) for name, *spec in zip(_LEVELS, dims, _STRIDES, strict=True)}
        self.depths = depths
        self.num_depths = 1 + sum(depths)
        self.apply(partial(_initialise, init=init))

    def forward(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Four maps (B, C_i, H_i, W_i), finest first, of ``x``: (B, 3, H, W) normalised float32.

        A size that is no multiple of 32 loses its last rows and columns level by level (720 gives 180, 90, 45, 22), as
        everywhere ConvNeXt is used.

        Raises:
            ValueError: if a side is below 32 pixels (not checked while a graph is exported: sizes are unknown then).
        """
        if paddle.in_dynamic_mode() and min(x.shape[2:]) < _STRIDES[-1]:
            raise ValueError(
                f"ConvNeXt halves its input five times: both sides must be at least {_STRIDES[-1]} px, got "
                f"{x.shape[2]} x {x.shape[3]} (H x W); enlarge or pad the image"
            )
        if self._trains_with_numba(x):
            from ppmtl.models.backbones import _convnext_cpu  # imports numba, which only training needs

            return dict(zip(_LEVELS, _convnext_cpu.levels(self, x), strict=True))
        features = {}
        # Indices, not zip(strict=True): Paddle's exporter rewrites zip and does not know the keyword.
        for index in range(len(self.stages)):
            x = self._stage(index, self.downsample_layers[index](x))
            features[_LEVELS[index]] = getattr(self, f"norm{index}")(x) if self.output_norm else x
        return features

    def _trains_with_numba(self, x: paddle.Tensor) -> bool:
        if self.kernels == "paddle" or not (self.training and self.single_backward):
            return False
        if self.kernels == "numba" and not has_numba():
            raise ConfigError(
                ["model.backbone.kernels: numba is not installed; pip install -r requirements.txt, or auto"]
            )
        return trains_with_numba(x) and self.stages[0][0].pwconv1.weight.dtype == paddle.float32

    def _stage(self, index: int, x: paddle.Tensor) -> paddle.Tensor:
        if not (self.recompute and self.training):
            return self.stages[index](x)
        for block in self.stages[index]:
            # Without a gradient on x, all before is frozen (or nothing is trained): Paddle would warn at every call
            x = block(x) if x.stop_gradient else recompute(block, x, use_reentrant=False)
        return x

    def use_pointwise_convolutions(self) -> None:
        """Replaces the blocks' linears by 1x1 convolutions with the same numbers, in place; for export only.

        Paddle Inference with oneDNN gains from bfloat16 only in convolutions (measured on ConvNeXt-L at 224 px on one core
        with AMX: 3.0 times faster than float32; with linears no gain at all); eager Paddle runs them slowly.
        """
        for stage in self.stages:
            for index, block in enumerate(stage):
                stage[index] = _ConvolutionBlock(block)

    def depth_of(self, name: str) -> int:
        """How many blocks deep a parameter ("stages.0.1.gamma") lies: 0 for the stem, num_depths - 1 for the last block.

        A downsampling layer counts with the block after it, a level's output norm with the block before it.

        Raises:
            ValueError: if it is none of this backbone's.
        """
        kind, *numbers = name.split(".")
        if kind == "stages":
            return sum(self.depths[: int(numbers[0])]) + int(numbers[1]) + 1
        if kind == "downsample_layers":
            stage = int(numbers[0])
            return 0 if stage == 0 else sum(self.depths[:stage]) + 1
        if kind in ("norm0", "norm1", "norm2", "norm3"):
            return sum(self.depths[: int(kind[-1]) + 1])
        raise ValueError(f"ConvNeXt has no parameter {name!r}")


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """One rate per block, rising linearly from 0 to ``last``. Source: golden drop_path.json."""
    return [last * index / max(1, blocks - 1) for index in range(blocks)]


def _initialise(layer: nn.Layer, *, init: str) -> None:
    """Convolutions and linears as ``init`` says, their biases 0."""
    if isinstance(layer, nn.Conv2D | nn.Linear):
        shape = layer.weight.shape  # (out, in / groups, h, w), or (in, out)
        fan_in = shape[0] if len(shape) == 2 else shape[1] * shape[2] * shape[3]
        facebook = init == "trunc_normal"
        draw = nn.initializer.TruncatedNormal(std=0.02) if facebook else nn.initializer.Normal(std=fan_in**-0.5)
        draw(layer.weight)
        nn.initializer.Constant(0.0)(layer.bias)
