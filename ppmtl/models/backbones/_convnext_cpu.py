"""ConvNeXt's training pass on CPU: channels last all the way, every block one step of autograd.

The kernels (ppmtl/models/_cpu_kernels.py, numba) do what is no matrix product. Same parameters, same random numbers and
the same results as convnext.py's blocks to about 1e-6; a block keeps 8 values per channel and pixel for backward.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import _C_ops, nn

from ppmtl.models import _cpu_kernels as kernels
from ppmtl.models.layers import ChannelLayerNorm

_EPSILON = 1e-6  # of every LayerNorm in ConvNeXt


def _empty(shape: list[int]) -> paddle.Tensor:
    return _C_ops.empty(shape, paddle.float32, paddle.CPUPlace())  # a quarter of the time of paddle.empty


def _at(*tensors: paddle.Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _groups(channels: int) -> int:
    return -(-channels // kernels.LANES)


def _sum_parts(sums: paddle.Tensor) -> paddle.Tensor:
    """The sum of (PARTS, ...) over the parts."""
    total = _empty(sums.shape[1:])
    kernels.add_parts(*_at(sums, total), total.size)
    return total


def _norm(x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """LayerNorm over the last axis, and the statistics that its backward needs."""
    channels, y = x.shape[-1], _empty(x.shape)
    rows = x.size // channels
    stats = _empty([rows, 2])
    kernels.run(kernels.norm_forward, kernels.PARTS, *_at(x, weight, bias, y, stats), rows, channels, _EPSILON)
    return y, stats


def _norm_backward(
    x: paddle.Tensor, dy: paddle.Tensor, weight: paddle.Tensor, stats: paddle.Tensor
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Gradients by x, weight and bias."""
    channels, dx = x.shape[-1], _empty(x.shape)
    sums = _empty([kernels.PARTS, 2, channels])
    rows = x.size // channels
    kernels.run(kernels.norm_backward, kernels.PARTS, *_at(x, dy, weight, stats, dx, sums), rows, channels)
    return dx, *_sum_parts(sums)


def _wanted(gradients: tuple[paddle.Tensor | None, ...], wanted: list[bool]) -> tuple[paddle.Tensor | None, ...]:
    """Paddle refuses a gradient for an input that needs none."""
    return tuple(gradient if wants else None for gradient, wants in zip(gradients, wanted, strict=True))


class _Norm(paddle.autograd.PyLayer):
    """LayerNorm over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
        x = x.contiguous()
        y, stats = _norm(x, weight, bias)
        ctx.save_for_backward(x, weight, stats)
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, weight, bias)]
        return y

    @staticmethod
    def backward(ctx: Any, dy: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight, stats = ctx.saved_tensor()
        return _wanted(_norm_backward(x, dy.contiguous(), weight, stats), ctx.wanted)


class _Block(paddle.autograd.PyLayer):
    """convnext.py's block on (B, H, W, C); the nine parameters are in the order of :func:`_inside`, gamma last."""

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, keep: paddle.Tensor, recompute: bool, *parameters: paddle.Tensor
    ) -> paddle.Tensor:
        x = x.contiguous()
        inside = _inside(x, *parameters[:-2])
        (batch, height, width, channels), y = x.shape, _empty(x.shape)
        addresses = _at(x, inside[-1], *parameters[-2:], keep, y)
        kernels.run(kernels.residual_forward, kernels.PARTS, *addresses, batch, height * width, channels)
        ctx.recompute, ctx.wanted = recompute, [not tensor.stop_gradient for tensor in (x, keep, *parameters)]
        ctx.save_for_backward(x, keep, *parameters, *(() if recompute else inside))
        return y

    @staticmethod
    def backward(ctx: Any, dy: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, keep, *saved = ctx.saved_tensor()
        weight, _, norm_weight, _, w1, b1, w2, b2, gamma = saved[:9]
        d, stats, n, h, o = _inside(x, *saved[:7]) if ctx.recompute else saved[9:]
        (batch, height, width, channels), dy = x.shape, dy.contiguous()

        do, sums = _empty(o.shape), _empty([kernels.PARTS, 2, channels])
        addresses = _at(dy, o, b2, gamma, keep, do, sums)
        kernels.run(kernels.residual_backward, kernels.PARTS, *addresses, batch, height * width, channels)
        dgamma, db2 = _sum_parts(sums)
        dh, g = paddle.matmul(do, w2, transpose_y=True), _empty(h.shape)
        sums = _empty([kernels.PARTS, h.shape[1]])
        kernels.run(kernels.gelu_backward, kernels.PARTS, *_at(h, b1, g, dh, sums), *h.shape)
        db1, dw2 = _sum_parts(sums), paddle.matmul(g, do, transpose_x=True)
        dw1, dn = paddle.matmul(n, dh, transpose_x=True), paddle.matmul(dh, w1, transpose_y=True)
        dd, dnorm_weight, dnorm_bias = _norm_backward(d, dn, norm_weight, stats)

        dweight, dbias, dx = _empty(weight.shape), _empty([channels]), _empty(x.shape)
        addresses = _at(x, weight, dd, dy, dx, dweight, dbias)
        sizes = batch, height, width, channels, weight.shape[-1]
        kernels.run(kernels.depthwise_backward, _groups(channels), *addresses, *sizes)
        of_parameters = dweight, dbias, dnorm_weight, dnorm_bias, dw1, db1, dw2, db2, dgamma
        return _wanted((dx, None, *of_parameters), ctx.wanted)


def _inside(x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, norm_weight: paddle.Tensor,
            norm_bias: paddle.Tensor, w1: paddle.Tensor, b1: paddle.Tensor, w2: paddle.Tensor
            ) -> tuple[paddle.Tensor, ...]:  # fmt: skip
    """What backward needs of a block: after the convolution, the norm's statistics, its output, after each linear."""
    batch, height, width, channels = x.shape
    d = _empty([batch * height * width, channels])
    sizes = batch, height, width, channels, weight.shape[-1]
    kernels.run(kernels.depthwise_forward, _groups(channels), *_at(x, weight, bias, d), *sizes)
    n, stats = _norm(d, norm_weight, norm_bias)
    h = paddle.matmul(n, w1)
    g = _empty(h.shape)
    kernels.run(kernels.gelu_forward, kernels.PARTS, *_at(h, b1, g), *h.shape)
    return d, stats, n, h, paddle.matmul(g, w2)


def _once(y: paddle.Tensor) -> paddle.Tensor:
    """Refuses a second backward through the step that made ``y``: Paddle 3.2 ends the process there (a null context)."""
    passed = False

    def check(_gradient: paddle.Tensor) -> None:
        nonlocal passed
        if passed:
            raise RuntimeError(
                "Paddle cannot go back twice through a training pass with kernels by numba, whatever retain_graph says; "
                "set model.backbone.kernels to paddle, or backbone.single_backward to False before the pass"
            )
        passed = True

    if not y.stop_gradient:
        y.register_hook(check)
    return y


def _block(block: nn.Layer, x: paddle.Tensor, recompute: bool) -> paddle.Tensor:
    gamma = paddle.ones([x.shape[3]]) if block.gamma is None else block.gamma
    # The layer itself draws the random numbers, so that they are the same ones
    keep = block.drop_path(paddle.ones([x.shape[0], 1, 1, 1]))
    layers = block.dwconv, block.norm, block.pwconv1, block.pwconv2
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    return _once(_Block.apply(x, keep, recompute, *parameters, gamma))


def _patches(conv: nn.Conv2D, x: paddle.Tensor) -> paddle.Tensor:
    """A convolution whose kernel is its stride as one matrix product; (B, H, W, C) -> (B, h, w, out)."""
    out, inner, side, _ = conv.weight.shape
    batch, height, width, _ = x.shape
    h, w = height // side, width // side
    if (h * side, w * side) != (height, width):
        x = x[:, : h * side, : w * side]
    rows = x.reshape([batch, h, side, w, side * inner]).transpose([0, 1, 3, 2, 4]).reshape([batch * h * w, -1])
    weight = conv.weight.transpose([2, 3, 1, 0]).reshape([side * side * inner, out])
    # Paddle 3.2's addmm is faster, and ends the process in backward where the bias is frozen
    y = paddle.matmul(rows, weight) + conv.bias if conv.bias.stop_gradient else paddle.addmm(conv.bias, rows, weight)
    return y.reshape([batch, h, w, out])


def _layer_norm(norm: ChannelLayerNorm, x: paddle.Tensor) -> paddle.Tensor:
    return _once(_Norm.apply(x, norm.weight, norm.bias))


def levels(net: nn.Layer, x: paddle.Tensor) -> list[paddle.Tensor]:
    """The four feature maps (B, C, H, W) of a ConvNeXt ``net``, of ``x``: (B, 3, H, W) float32 on CPU."""
    kernels.prepare()
    features, x = [], x.transpose([0, 2, 3, 1])
    for index, (downsample, stage) in enumerate(zip(net.downsample_layers, net.stages, strict=True)):
        if index == 0:
            x = _layer_norm(downsample[1], _patches(downsample[0], x))
        else:
            x = _patches(downsample[1], _layer_norm(downsample[0], x))
        for block in stage:
            x = _block(block, x, net.recompute)
        y = _layer_norm(getattr(net, f"norm{index}"), x) if net.output_norm else x
        features.append(y.transpose([0, 3, 1, 2]))
    return features
