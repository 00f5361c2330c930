"""Layers that several parts use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

_LARGE_MAP = 1024  # pixels of a batch


@runtime_checkable
class Foldable(Protocol):
    """A layer that has a simpler form with the same outputs in evaluation; export asks every part of a model for it."""

    def fold_for_inference(self) -> None:
        """Takes that form, in place. The layer cannot be trained afterwards."""


def fold_batch_norm(conv: nn.Conv2D, bn: nn.Layer) -> None:
    """Moves a batch normalisation into the convolution before it, in place; in float64, so that only the end is rounded."""
    scale = _float64(bn.weight) / np.sqrt(_float64(bn._variance) + bn._epsilon)
    bias = (0.0 if conv.bias is None else _float64(conv.bias)) - _float64(bn._mean)
    if conv.bias is None:
        conv.bias = conv.create_parameter([conv.weight.shape[0]], is_bias=True)
    conv.weight.set_value((_float64(conv.weight) * scale.reshape(-1, 1, 1, 1)).astype(np.float32))
    conv.bias.set_value((bias * scale + _float64(bn.bias)).astype(np.float32))


def _float64(tensor: paddle.Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.float64)


@cache
def has_numba() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def numba_computes(x: paddle.Tensor) -> bool:
    """Whether numba's kernels may compute with ``x``: float32, on CPU, and numba is installed."""
    return bool(x.dtype == paddle.float32 and x.place.is_cpu_place() and has_numba())


def trains_with_numba(x: paddle.Tensor) -> bool:
    """Whether numba's kernels may compute with ``x`` in a training step."""
    return paddle.in_dynamic_mode() and paddle.is_grad_enabled() and numba_computes(x)


class Conv2D(nn.Conv2D):
    """Paddle's convolution, computed on CPU in ways whose gradients are faster; the same numbers up to rounding.

    The bias is added as an expanded tensor: the gradient of its broadcast addition takes four times as long. A large map
    that becomes much narrower is convolved as the transpose of a convolution: Paddle's kernel lays out k * k * (output
    channels) values per pixel then, instead of k * k * (input channels). Measured in docs/benchmarks.md.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, out_channels, H', W')."""
        if not (paddle.in_dynamic_mode() and x.place.is_cpu_place()):
            return super().forward(x)
        if self._narrows(x):
            weight = self.weight.flip([2, 3]).transpose([1, 0, 2, 3])
            y = F.conv2d_transpose(x, weight, None, padding=self._kernel_size[0] // 2)
        else:
            y = F.conv2d(x, self.weight, None, self._stride, self._updated_padding, self._dilation, self._groups)
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1]).expand(y.shape)

    def _narrows(self, x: paddle.Tensor) -> bool:
        side = self._kernel_size[0]
        plain = self._stride == self._dilation == [1, 1] and self._groups == 1 and self._kernel_size == [side, side]
        same = plain and side % 2 == 1 and self._padding == side // 2 and self._padding_mode == "zeros"
        narrower = same and side > 1 and self._in_channels >= 2 * self._out_channels
        return narrower and x.shape[0] * x.shape[2] * x.shape[3] >= _LARGE_MAP


class ChannelLayerNorm(nn.Layer):
    """Layer normalisation over the channels of (B, C, H, W), eps 1e-6; ``weight`` (C,) and ``bias`` (C,)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = self.create_parameter([channels], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([channels], is_bias=True)
        self.channels = channels

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """The normalised tensor, same shape."""
        x = F.layer_norm(x.transpose([0, 2, 3, 1]), self.channels, self.weight, self.bias, epsilon=1e-6)
        return x.transpose([0, 3, 1, 2])


class DropPath(nn.Layer):
    """Zeroes a residual branch per sample with probability ``rate`` in training; the others grow by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x, or zeros for the samples dropped."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = [x.shape[0]] + [1] * (x.ndim - 1)
        mask = paddle.floor(paddle.rand(shape, dtype=x.dtype) + keep)
        return x * (mask / keep)


class ConvBNReLU(nn.Layer):
    """Convolution with same padding, batch normalisation, ReLU; parameters are ``conv.*`` and ``bn.*``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = Conv2D(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_attr=None if bias else False
        )
        self.bn = nn.BatchNorm2D(out_channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, out_channels, H, W).

        In training, one value per channel (one image and a 1x1 map: pyramid pooling's coarsest bin at batch size 1) has
        no statistics. Paddle then silently skips the normalisation, scale and shift included; here the running
        statistics are used, as in evaluation. SyncBatchNorm has the values of all cards and needs no help.
        """
        x = self.conv(x)
        bn = self.bn
        if self.training and isinstance(bn, nn.BatchNorm2D) and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            x = F.batch_norm(x, bn._mean, bn._variance, bn.weight, bn.bias, training=False, epsilon=bn._epsilon)
            return F.relu(x)
        return F.relu(bn(x))

    def fold_for_inference(self) -> None:
        """Leaves one convolution with a bias, and ReLU."""
        fold_batch_norm(self.conv, self.bn)
        self.bn = nn.Identity()


def resize(x: paddle.Tensor, size: Sequence[int | paddle.Tensor], *, align_corners: bool) -> paddle.Tensor:
    """The bilinear resize of ``x`` (B, C, h, w) to ``size`` (height, width), (B, C, H, W).

    On CPU it is two matrix products, which in training are up to three times as fast as the operator (docs/benchmarks.md)
    and differ from it by rounding only.
    """
    if not paddle.in_dynamic_mode():
        return _resize_in_graph(x, size, align_corners=align_corners)
    height, width = int(size[0]), int(size[1])
    if not x.place.is_cpu_place():
        return F.interpolate(x, size=[height, width], mode="bilinear", align_corners=align_corners)
    if (height, width) == tuple(x.shape[2:]):
        return x
    rows, columns = (
        paddle.to_tensor(_resize_matrix(old, new, align_corners), x.dtype)
        for old, new in zip(x.shape[2:], (height, width), strict=True)
    )
    return paddle.matmul(rows, paddle.matmul(x, columns, transpose_y=True))


@lru_cache(maxsize=64)
def _resize_matrix(old: int, new: int, align_corners: bool) -> np.ndarray:
    """How much each of ``old`` positions counts in each of ``new``, (new, old) float64."""
    distance = np.abs(resized_positions(old, new, align_corners=align_corners)[:, None] - np.arange(old))
    return np.maximum(1 - distance, 0)


def resized_positions(old: int, new: int, *, align_corners: bool) -> np.ndarray:
    """Where each of ``new`` positions lies among ``old`` ones when a side is resized, (new,) float64 in 0..old - 1."""
    index = np.arange(new, dtype=np.float64)
    place = index * (old - 1) / max(new - 1, 1) if align_corners else (index + 0.5) * old / new - 0.5
    return np.clip(place, 0, old - 1)


def _resize_in_graph(x: paddle.Tensor, size: Sequence[int | paddle.Tensor], *, align_corners: bool) -> paddle.Tensor:
    if align_corners:
        # Paddle Inference 3.2.2 hands every bilinear resize of a .json graph to oneDNN, which cannot align corners and
        # silently does not (probabilities off by .2; PaddlePaddle/Paddle#52462 excluded .pdmodel graphs only). With a
        # depth of 1 the trilinear resize gives the same numbers and stays away from oneDNN.
        cube = F.interpolate(
            x.unsqueeze(2), size=[1, size[0], size[1]], mode="trilinear", align_corners=True, data_format="NCDHW"
        )
        return cube.squeeze(2)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ConvBNSiLU(nn.Layer):
    """Convolution without bias, batch normalisation, SiLU: the layer of the YOLO family. Odd kernels keep the size.

    Args:
        stride: 2 halves the size, rounded up.
        epsilon, momentum: of the batch norm; what this family is trained with. The momentum is Paddle's: the share of
            the old running value that is kept.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        epsilon: float = 1e-3,
        momentum: float = 0.97,
    ) -> None:
        super().__init__()
        bound = (in_channels * kernel * kernel) ** -0.5  # 1/sqrt(fan_in), what this family is trained from
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)),
            bias_attr=False,
        )
        self.bn = nn.BatchNorm2D(out_channels, momentum=momentum, epsilon=epsilon)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, out_channels, H / stride, W / stride)."""
        return F.silu(self.bn(self.conv(x)))

    def fold_for_inference(self) -> None:
        """Leaves one convolution with a bias, and SiLU."""
        fold_batch_norm(self.conv, self.bn)
        self.bn = nn.Identity()


class Implicit(nn.Layer):
    """Implicit knowledge round a 1x1 convolution: ``multiply * conv(x + add)`` with two learned vectors.

    The vectors have the shape (1, C, 1, 1), so the optimizer spares them from weight decay. The convolution stays a part
    of the layer that made it; here it is only called.

    Args:
        conv: the last convolution of a head, with a bias.
        enabled: False leaves the convolution as it is, without vectors.

    Source: Wang et al., "You Only Learn One Representation", 2021; drawn from N(0, .02) and N(1, .02) as in its code.
    """

    def __init__(self, conv: nn.Conv2D, *, enabled: bool = True) -> None:
        super().__init__()
        self._conv = (conv,)  # in a tuple: as an attribute it would be listed a second time
        self.add = self.multiply = None
        if enabled:
            out_channels, in_channels = conv.weight.shape[:2]
            normal = nn.initializer.Normal
            self.add = self.create_parameter([1, in_channels, 1, 1], default_initializer=normal(0.0, 0.02))
            self.multiply = self.create_parameter([1, out_channels, 1, 1], default_initializer=normal(1.0, 0.02))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, out_channels, H, W) of (B, in_channels, H, W)."""
        conv = self._conv[0]
        return conv(x) if self.add is None else self.multiply * conv(x + self.add)

    def fold_for_inference(self) -> None:
        """Moves both vectors into the convolution: W' = multiply W and b' = multiply (b + W add); in float64."""
        if self.add is None:
            return
        conv = self._conv[0]
        weight, multiply = _float64(conv.weight)[:, :, 0, 0], _float64(self.multiply).ravel()
        bias = multiply * (_float64(conv.bias) + weight @ _float64(self.add).ravel())
        conv.weight.set_value((weight * multiply[:, None])[:, :, None, None].astype(np.float32))
        conv.bias.set_value(bias.astype(np.float32))
        self.add = self.multiply = None


def sigmoid(x: paddle.Tensor) -> paddle.Tensor:
    """1 / (1 + exp(-x)), also while a graph of the old format (.pdmodel) is exported.

    Paddle 3.2.2 binds ``F.sigmoid`` straight to the new format's operator, which refuses the old format's variables
    ("must be Value, but got Variable"). The formula's overflow below -88 is harmless there: 1 / inf = 0, no gradient.
    ``paddle.reciprocal`` and not ``1 / y``: Paddle Inference 3.2.2 with oneDNN computes the latter wrongly (measured:
    off by 9 on values of 3 and more), without a word.
    """
    return F.sigmoid(x) if paddle.in_dynamic_mode() else paddle.reciprocal(1 + paddle.exp(-x))
