"""The shared layers: what the tests of the networks cannot see."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.layers import ChannelLayerNorm, ConvBNReLU, sigmoid


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
