"""The shared layers: what the tests of the networks cannot see."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.layers import ChannelLayerNorm, Conv2D, ConvBNReLU, resize, sigmoid


def test_channel_norm_equals_the_layer_norm_of_each_place():
    layer = ChannelLayerNorm(6)
    for parameter in layer.parameters():
        parameter.set_value(paddle.rand([6]))
    x = paddle.rand([2, 6, 3, 5])
    expected = F.layer_norm(x[:, :, 2, 4], 6, layer.weight, layer.bias, epsilon=1e-6)
    np.testing.assert_allclose(layer(x)[:, :, 2, 4].numpy(), expected.numpy(), atol=1e-6)


def test_drop_path_acts_in_every_block_but_the_first_and_in_training_only():
    paddle.seed(0)
    net = ConvNeXt(depths=(2, 1, 1, 1), dims=(4, 4, 4, 4), drop_path_rate=0.9, layer_scale_init=1.0)
    for place, block in enumerate(block for stage in net.stages for block in stage):
        nn.initializer.Constant(1.0)(block.pwconv2.bias)  # so that a kept branch always adds something
        x = paddle.rand([64, 4, 2, 2])
        block.train()
        unchanged = (block(x) == x).numpy().all(axis=(1, 2, 3))
        expected = 0.9 * place / 4
        assert unchanged.mean() == pytest.approx(expected, abs=0.2), place  # three standard deviations
        block.eval()
        assert not (block(x) == x).numpy().all(axis=(1, 2, 3)).any(), place


@pytest.mark.parametrize(("batch", "side"), [(1, 1), (2, 1), (1, 2)])
def test_training_and_evaluation_agree_on_a_single_value_and_only_there(batch, side):
    paddle.seed(0)
    layer, x = ConvBNReLU(3, 4, 1, bias=True), paddle.rand([batch, 3, side, side])
    layer.bn.bias.set_value(paddle.full([4], 10.0))  # away from the kink of ReLU
    layer.train()
    trained = layer(x).numpy()
    before = layer.bn._mean.numpy()
    layer.eval()
    if batch * side == 1:
        np.testing.assert_array_equal(trained, layer(x).numpy())
        np.testing.assert_array_equal(before, 0)  # one value is no statistic: nothing was learnt from it
    else:
        np.testing.assert_allclose(trained.mean(axis=(0, 2, 3)), 10, atol=1e-3)
        assert (before != 0).any()


def test_sigmoid_equals_paddles_far_out_too():
    x = paddle.to_tensor([-200.0, -20.0, 0.0, 20.0, 200.0], stop_gradient=False)
    sigmoid(x).sum().backward()
    np.testing.assert_array_equal(sigmoid(x).numpy(), F.sigmoid(x).numpy())
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("old", "new"), [((4, 6), (32, 48)), ((32, 48), (33, 40)), ((12, 9), (5, 3)), ((1, 1), (6, 4))]
)
def test_resize_as_matrix_products_equals_the_operator_with_its_gradient(old, new, align_corners: bool) -> None:
    x = paddle.randn([2, 3, *old])
    weights = paddle.randn([2, 3, *new])
    results = []
    for way in (lambda v: resize(v, new, align_corners=align_corners),
                lambda v: F.interpolate(v, size=list(new), mode="bilinear", align_corners=align_corners)):  # fmt: skip
        value = x.clone().detach()
        value.stop_gradient = False
        out = way(value)
        (out * weights).sum().backward()
        results.append((out.numpy(), value.grad.numpy()))
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2}])
def test_a_convolution_with_expanded_bias_equals_paddles(settings) -> None:
    ours, reference = Conv2D(4, 6, 3, **settings), paddle.nn.Conv2D(4, 6, 3, **settings)
    reference.set_state_dict(ours.state_dict())
    x = paddle.randn([2, 4, 9, 7])
    outputs = [layer(x) for layer in (ours, reference)]
    for out in outputs:
        (out * out).sum().backward()
    np.testing.assert_array_equal(outputs[0].numpy(), outputs[1].numpy())
    np.testing.assert_array_equal(ours.weight.grad.numpy(), reference.weight.grad.numpy())
    np.testing.assert_allclose(ours.bias.grad.numpy(), reference.bias.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_convolution_that_narrows_a_large_map_equals_paddles(kernel: int, monkeypatch) -> None:
    ours, reference = Conv2D(9, 4, kernel, padding=kernel // 2), nn.Conv2D(9, 4, kernel, padding=kernel // 2)
    reference.set_state_dict(ours.state_dict())
    calls = []
    transposed = F.conv2d_transpose
    monkeypatch.setattr(F, "conv2d_transpose", lambda *a, **k: calls.append(1) or transposed(*a, **k))
    x, weights = paddle.randn([2, 9, 23, 25]), paddle.randn([2, 4, 23, 25])
    results = []
    for layer in (ours, reference):
        value = x.clone().detach()
        value.stop_gradient = False
        out = layer(value)
        (out * weights).sum().backward()
        results.append([out, value.grad, layer.weight.grad, layer.bias.grad])
    assert calls
    for mine, paddles in zip(*results, strict=True):
        np.testing.assert_allclose(mine.numpy(), paddles.numpy(), rtol=0, atol=1e-5 * float(paddles.abs().max()))
