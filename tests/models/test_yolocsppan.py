"""The neck: wiring against a reference forward, parameter counts, initialisation, refusal of sizes that do not nest."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_weights import assert_equals_summary, parameter_count, seeded
from levels import specs as named_specs

from ppmtl.models.necks.yolocsppan import YOLOCSPPAN
from ppmtl.structures import FeatureSpec

GOLDEN = Path(__file__).parents[1] / "golden"


def specs(*channels: int) -> list[FeatureSpec]:
    return list(named_specs(*channels).values())


def seeded_value(key: str, shape: list[int]) -> np.ndarray:
    """Returns the weight that the golden file's recipe gives to ``key``."""
    value = 0.1 * seeded(key, shape)
    if key.endswith("_variance"):
        value = 1 + np.abs(value)
    elif key.endswith("bn.weight"):
        value = 1 + value
    return value.astype(np.float32)


def test_forward_equals_the_reference_with_the_same_weights():
    golden = json.loads((GOLDEN / "yolocsppan_forward.json").read_text())
    neck = YOLOCSPPAN(specs(8, 16, 24), depth_multiplier=0.33, bn_epsilon=1e-5)
    state = neck.state_dict()
    assert sorted(state) == golden["keys"]
    neck.set_state_dict({key: paddle.to_tensor(seeded_value(key, list(t.shape))) for key, t in state.items()})
    neck.eval()
    random = np.random.RandomState(12)
    shapes = [(1, 8, 16, 16), (1, 16, 8, 8), (1, 24, 4, 4)]
    outputs = neck([paddle.to_tensor(random.randn(*shape).astype(np.float32)) for shape in shapes])
    assert len(outputs) == len(golden["out"]) == 3
    for output, expected in zip(outputs, golden["out"], strict=True):
        # float32 convolutions: rounding differs with the order of summation
        assert_equals_summary(output.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "depth", "count"),
    [
        ((384, 768, 1536), 1.0, 43_907_328),
        ((192, 384, 768), 1.0, 10_986_624),
        ((192, 384, 768), 0.67, 8_679_168),
        ((192, 384, 768), 0.33, 6_371_712),
    ],
)
def test_parameter_counts_are_the_published_ones(channels, depth, count):
    assert parameter_count(YOLOCSPPAN(specs(*channels), depth_multiplier=depth)) == count


def test_channels_bring_each_level_to_the_asked_width_first():
    neck = YOLOCSPPAN(specs(6, 10, 14), channels=(4, 8, 12), depth_multiplier=0.33)
    assert [(spec.channels, spec.stride) for spec in neck.out_specs] == [(4, 8), (8, 16), (12, 32)]
    plain = YOLOCSPPAN(specs(4, 8, 12), depth_multiplier=0.33)
    assert parameter_count(neck) - parameter_count(plain) == (6 * 4 + 2 * 4) + (10 * 8 + 2 * 8) + (14 * 12 + 2 * 12)
    outputs = neck([paddle.rand([2, c, 4 * n, 4 * n]) for c, n in ((6, 4), (10, 2), (14, 1))])
    assert [list(output.shape) for output in outputs] == [[2, 4, 16, 16], [2, 8, 8, 8], [2, 12, 4, 4]]


def test_every_convolution_starts_uniform_within_one_over_root_fan_in():
    neck = YOLOCSPPAN(specs(32, 64, 128))
    convolutions = [layer for layer in neck.sublayers() if isinstance(layer, paddle.nn.Conv2D)]
    assert len(convolutions) == 2 + 2 + 4 * (3 + 2 * 3)
    for layer in convolutions:
        weight = layer.weight.numpy()
        bound = np.prod(weight.shape[1:]) ** -0.5
        assert np.abs(weight).max() <= bound
        assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_batch_norm_constants_are_the_families():
    norms = [layer for layer in YOLOCSPPAN(specs(4, 8, 16)).sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    assert len(norms) == 40
    assert {(norm._epsilon, norm._momentum) for norm in norms} == {(1e-3, 0.97)}


def test_every_parameter_gets_a_gradient():
    neck = YOLOCSPPAN(specs(4, 6, 8), channels=(4, 4, 4))
    outputs = neck([paddle.rand([2, c, n, n]) for c, n in ((4, 8), (6, 4), (8, 2))])
    sum((output * paddle.rand(output.shape)).sum() for output in outputs).backward()
    without = [name for name, p in neck.named_parameters() if not p.stop_gradient and p.grad is None]
    assert without == []


def test_sizes_that_do_not_nest_are_refused_with_the_remedy():
    neck = YOLOCSPPAN(specs(4, 4, 4))
    with pytest.raises(ValueError, match=r"halve exactly, got .*\(5, 4\).*pad"):
        neck([paddle.rand([1, 4, 9, 8]), paddle.rand([1, 4, 5, 4]), paddle.rand([1, 4, 2, 2])])


@pytest.mark.parametrize(
    ("in_specs", "message"),
    [
        ([FeatureSpec(4, 8), FeatureSpec(4, 16)], "three levels"),
        ([FeatureSpec(4, 4), FeatureSpec(4, 16), FeatureSpec(4, 32)], r"strides \[4, 16, 32\]"),
        (specs(4, 5, 4), "even"),
    ],
)
def test_levels_that_cannot_work_are_refused(in_specs, message):
    with pytest.raises(ValueError, match=message):
        YOLOCSPPAN(in_specs)
