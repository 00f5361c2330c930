"""ConvNeXt's training pass and single layers (forward and backward, float32, CPU) beside Paddle's operators and torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.heads._pixel_loss import pixel_cross_entropy
from ppmtl.models.layers import Conv2D, resize
from ppmtl.structures import IGNORE_LABEL
from ppmtl.train import distributed


class Net(NamedTuple):
    """A backbone and the images of one pass."""

    settings: Mapping[str, Any]
    images: tuple[int, int, int]  # batch, height, width


_SMALL = {"depths": (1, 1, 3, 1), "dims": (32, 64, 128, 256), "init": "fan_in", "layer_scale_init": 1.0}
NETS = {
    "demo": Net(_SMALL | {"kernel_size": 3}, (4, 128, 128)),
    "custom": Net(_SMALL | {"kernel_size": 7}, (4, 192, 192)),
    "atto": Net({"arch": "atto", "layer_scale_init": 0.1}, (4, 224, 224)),
    "tiny": Net({"arch": "tiny", "layer_scale_init": 0.1}, (4, 224, 224)),
    "large": Net({"arch": "large", "layer_scale_init": 0.1}, (1, 224, 224)),
}


class PaddlePass:
    """One training pass of ConvNeXt per call; returns the gradients, by reference."""

    def __init__(self, net: Net, kernels: Literal["paddle", "numba"]) -> None:
        distributed.start("cpu")
        paddle.seed(0)
        self.net = ConvNeXt(**net.settings, drop_path_rate=0.0, kernels=kernels)
        self.net.train()
        self.images = images(net)

    def __call__(self) -> dict[str, paddle.Tensor]:
        self.net.clear_gradients(set_to_zero=False)
        _objective(self.net(paddle.to_tensor(self.images)).values()).backward()
        return {name: p.grad for name, p in self.net.named_parameters()}


class TorchPass:
    """The same pass with the same weights in torch, written with its functional operators."""

    def __init__(self, net: Net, weights: ConvNeXt) -> None:
        import torch

        self.images, self.depths = torch.from_numpy(images(net)), weights.depths
        self.weights = {}
        for name, value in weights.named_parameters():
            array = value.numpy()
            array = array.T.copy() if array.ndim == 2 else array  # Paddle's linears are (in, out)
            self.weights[name] = torch.from_numpy(array).requires_grad_()

    def __call__(self) -> dict[str, Any]:
        for weight in self.weights.values():
            weight.grad = None
        _objective(self._levels(self.images)).backward()
        return {name: w.grad.T if w.ndim == 2 else w.grad for name, w in self.weights.items()}

    def _levels(self, x: Any) -> list[Any]:
        from torch.nn import functional as F

        def parts(name: str) -> tuple[Any, Any]:
            return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

        def norm(name: str, x: Any) -> Any:
            return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], *parts(name), 1e-6).permute(0, 3, 1, 2)

        levels = []
        for index, depth in enumerate(self.depths):
            stem = f"downsample_layers.{index}"
            if index == 0:
                x = norm(f"{stem}.1", F.conv2d(x, *parts(f"{stem}.0"), stride=4))
            else:
                x = F.conv2d(norm(f"{stem}.0", x), *parts(f"{stem}.1"), stride=2)
            for block in range(depth):
                at = f"stages.{index}.{block}"
                weight, bias = parts(f"{at}.dwconv")
                y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1]).permute(0, 2, 3, 1)
                y = F.linear(F.layer_norm(y, y.shape[-1:], *parts(f"{at}.norm"), 1e-6), *parts(f"{at}.pwconv1"))
                y = F.linear(F.gelu(y), *parts(f"{at}.pwconv2")) * self.weights[f"{at}.gamma"]
                x = x + y.permute(0, 3, 1, 2)
            levels.append(norm(f"norm{index}", x))
        return levels


class LayerPass:
    """Forward and backward of one layer per call; returns the gradients, by reference.

    Args:
        layer: called with the input.
        shape: of its input, noise.
    """

    def __init__(self, layer: Callable[[paddle.Tensor], paddle.Tensor], shape: Sequence[int]) -> None:
        distributed.start("cpu")
        self.layer, self.x = layer, paddle.to_tensor(_noise(shape), stop_gradient=False)
        self.parameters = layer.parameters() if isinstance(layer, nn.Layer) else []
        self.slope = paddle.to_tensor(_noise(layer(self.x).shape))

    def __call__(self) -> dict[str, paddle.Tensor]:
        inputs = [self.x, *self.parameters]
        for tensor in inputs:
            tensor.clear_gradient(False)
        paddle.autograd.backward([self.layer(self.x)], [self.slope])
        return {str(number): tensor.grad for number, tensor in enumerate(inputs)}


def convolutions(channels: int, out: int, kernel: int) -> tuple[nn.Layer, nn.Layer]:
    """Our convolution with same padding and a bias, and Paddle's with the same weights."""
    ours, reference = (kind(channels, out, kernel, padding=kernel // 2) for kind in (Conv2D, nn.Conv2D))
    reference.set_state_dict(ours.state_dict())
    return ours, reference


def resizes(size: tuple[int, int]) -> tuple[Callable[..., paddle.Tensor], Callable[..., paddle.Tensor]]:
    """Our aligned bilinear resize and Paddle's."""
    paddles = partial(F.interpolate, size=list(size), mode="bilinear", align_corners=True)
    return partial(resize, size=size, align_corners=True), paddles


def pixel_losses(classes: int, shape: tuple[int, int, int]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The pixel loss by numba and by Paddle's operators, for random labels of ``shape`` (batch, height, width)."""
    labels = paddle.to_tensor(np.random.default_rng(0).integers(0, classes, shape))

    def by_operators(logits: paddle.Tensor) -> paddle.Tensor:
        logits = F.interpolate(logits, size=list(shape[1:]), mode="bilinear")
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, axis=1)

    return partial(pixel_cross_entropy, labels=labels), by_operators


def _noise(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(tuple(shape)).astype(np.float32)


def _objective(levels: Iterable[Any]) -> Any:
    """A scalar of all levels; not of their squares, whose sum no net changes behind a LayerNorm."""
    return sum((level * (3 * level.detach()).cos()).sum() for level in levels)


def images(net: Net) -> np.ndarray:
    """(B, 3, H, W) noise, the same in every call."""
    batch, height, width = net.images
    return _noise((batch, 3, height, width))


def agree(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether all gradients are equal to 1e-4 of their largest element."""
    if ours.keys() != theirs.keys():
        return False
    pairs = [(ours[name].numpy(), theirs[name].numpy()) for name in ours]
    return all(bool(np.abs(a - b).max() <= 1e-4 * np.abs(b).max()) for a, b in pairs)
