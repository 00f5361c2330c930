"""Implicit knowledge: its formula, its folding, and what the optimizer does with it."""

import numpy as np
import paddle
import pytest
from paddle import nn
from yolor_golden import assert_equals, golden, hv, weight

from ppmtl.config.settings import OptimizerSettings
from ppmtl.models.layers import Foldable, Implicit
from ppmtl.train.optim import build_optimizer

GOLDEN = golden("implicit")
SIZES = ((4, 6), (2, 3), (1, 2))


def reference_level(level: int) -> tuple[nn.Conv2D, Implicit]:
    channels = GOLDEN["keys"][f"ia.{level}.implicit"][1]
    conv = nn.Conv2D(channels, 24, 1)
    implicit = Implicit(conv)
    conv.weight.set_value(weight(f"m.{level}.weight", conv.weight.shape))
    conv.bias.set_value(weight(f"m.{level}.bias", [24]))
    implicit.add.set_value(hv(f"ia.{level}.implicit", (1, channels, 1, 1), -0.3, 0.3))
    implicit.multiply.set_value(hv(f"im.{level}.implicit", (1, 24, 1, 1), 0.8, 1.2))
    return conv, implicit


@pytest.mark.parametrize("level", range(3))
def test_output_and_folded_convolution_equal_the_reference(level):
    expected, (conv, implicit) = GOLDEN["levels"][level], reference_level(level)
    x = paddle.to_tensor(hv(f"impl.in.{level}", (1, conv.weight.shape[1], *SIZES[level]), -1, 1))
    assert_equals(implicit(x), expected["raw_out"], atol=1e-5)
    assert isinstance(implicit, Foldable)
    implicit.fold_for_inference()
    assert_equals(conv.weight, expected["fused_weight"], atol=1e-6)
    np.testing.assert_allclose(conv.bias.numpy(), expected["fused_bias"], atol=1e-6)
    assert_equals(implicit(x), expected["raw_out"], atol=1e-5)
    assert not list(implicit.parameters())
    implicit.fold_for_inference()  # nothing left to fold
    assert_equals(implicit(x), expected["raw_out"], atol=1e-5)


def test_without_it_the_convolution_is_called_as_it_is():
    conv = nn.Conv2D(4, 6, 1)
    x = paddle.rand([2, 4, 3, 3])
    implicit = Implicit(conv, enabled=False)
    np.testing.assert_array_equal(implicit(x).numpy(), conv(x).numpy())
    assert not list(implicit.parameters())


def test_its_vectors_begin_near_0_and_1_and_the_convolution_is_not_listed_twice():
    paddle.seed(0)
    implicit = Implicit(nn.Conv2D(500, 600, 1))
    assert [name for name, _ in implicit.named_parameters()] == ["add", "multiply"]
    for vector, mean in ((implicit.add, 0.0), (implicit.multiply, 1.0)):
        assert float(vector.mean()) == pytest.approx(mean, abs=0.005)
        assert float(vector.std()) == pytest.approx(0.02, rel=0.15)


def test_its_vectors_do_not_decay_and_the_convolution_does():
    model = nn.LayerDict({"conv": nn.Conv2D(4, 6, 1)})
    model["implicit"] = Implicit(model["conv"])
    groups = build_optimizer(model, OptimizerSettings(weight_decay=0.1))._param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    found = {name: decay[id(parameter)] for name, parameter in model.named_parameters()}
    assert found == {"conv.weight": 0.1, "conv.bias": 0.0, "implicit.add": 0.0, "implicit.multiply": 0.0}
