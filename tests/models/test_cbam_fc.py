"""The classification head: attention against reference numbers, parameter counts, label smoothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_weights import assert_equals_summary, parameter_count, seeded
from levels import random_features, specs

from ppmtl.models.heads.cbam_fc import _CBAM, CBAMFC, class_cross_entropy
from ppmtl.structures import FeatureSpec

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cbam.json").read_text())


@pytest.fixture(scope="module")
def attention() -> tuple[_CBAM, paddle.Tensor]:
    layer = _CBAM(32, 16)
    state = layer.state_dict()
    assert len(state) == 6
    layer.set_state_dict(
        {key: paddle.to_tensor((0.3 * seeded(key, list(v.shape))).astype(np.float32)) for key, v in state.items()}
    )
    return layer, paddle.to_tensor(np.random.RandomState(21).randn(1, 32, 5, 7).astype(np.float32))


def test_attention_equals_the_papers_with_the_channel_maximum(attention):
    layer, x = attention
    assert_equals_summary(layer(x).numpy(), GOLDEN["paper_CBAM_channel_max"], rtol=1e-5)


def test_attention_is_not_the_baselines_with_the_index_of_the_maximum(attention):
    layer, x = attention
    assert np.abs(layer(x).numpy()).sum() > 1.5 * GOLDEN["open_transmind_argmax_bug"]["abs_sum"]


def test_the_golden_argmax_numbers_come_from_the_same_weights(attention):
    # So that the file's second entry is known to differ by the arg-maximum and by nothing else
    layer, x = attention
    pooled = (x.mean([2, 3], keepdim=True), x.max([2, 3], keepdim=True))
    scaled = x * paddle.nn.functional.sigmoid(sum(layer.fc2(paddle.nn.functional.relu(layer.fc1(p))) for p in pooled))
    where = paddle.concat([scaled.mean(1, keepdim=True), scaled.argmax(1, keepdim=True).astype("float32")], axis=1)
    out = scaled * paddle.nn.functional.sigmoid(layer.conv_after_concat(where))
    assert_equals_summary(out.numpy(), GOLDEN["open_transmind_argmax_bug"], rtol=1e-5)


def test_the_maximum_over_channels_passes_gradients():
    layer = _CBAM(32, 16)
    for parameter in (*layer.fc1.parameters(), *layer.fc2.parameters()):
        parameter.set_value(paddle.zeros_like(parameter))  # channel attention is .5 everywhere
    weight = paddle.ones_like(layer.conv_after_concat.weight)
    weight[:, 0] = 0.0  # spatial attention sees the maximum and not the mean
    layer.conv_after_concat.weight.set_value(weight)
    values = np.ones([1, 32, 3, 3], np.float32)
    values[:, 4] = 2.0
    x = paddle.to_tensor(values, stop_gradient=False)
    layer(x)[:, 5].sum().backward()
    assert (x.grad.numpy()[:, 4] > 0).all()  # channel 4 is the maximum; an index would have passed nothing
    assert (x.grad.numpy()[:, 6] == 0).all()


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 21_834_631),
        ({"channels": 768}, 10_843_735),
        ({"channels": 512}, 7_212_871),
        ({"kernel_size": 1}, 2_960_263),
    ],
)
def test_parameter_counts_are_the_specified_ones(changes, count):
    head = CBAMFC(specs(1536), 196, **changes)
    assert parameter_count(head) == count
    if not changes:
        assert parameter_count(head.cbam) == 296_643
        assert parameter_count(head.fc) == 301_252


def small(**changes) -> CBAMFC:
    paddle.seed(0)
    return CBAMFC(specs(8, 16), 7, **changes)


def levels() -> dict[str, paddle.Tensor]:
    return random_features((8, 16), ((4, 4), (2, 2)), batch=3)


def test_probabilities_sum_to_one():
    probs = small()(levels(), (64, 64))["probs"].numpy()
    assert probs.shape == (3, 7)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_smoothing_spreads_over_the_other_classes_only(epsilon):
    head = small(label_smoothing=epsilon)
    targets = np.array([2, 0, 6])
    probs = head(levels(), (64, 64))["probs"].numpy().astype(np.float64)
    wanted = np.full((3, 7), epsilon / 6)
    wanted[np.arange(3), targets] = 1 - epsilon
    terms = head(levels(), (64, 64), {"class_index": paddle.to_tensor(targets)})
    assert list(terms) == ["loss_ce"]
    assert list(terms["loss_ce"].shape) == []
    assert float(terms["loss_ce"]) == pytest.approx(-(wanted * np.log(probs)).sum(axis=1).mean(), rel=1e-5)


def test_one_class_with_smoothing_is_legal():
    head = CBAMFC(specs(16), 1, label_smoothing=0.1)
    assert float(head(levels(), (64, 64), {"class_index": paddle.zeros([3], "int64")})["loss_ce"]) == 0.0


@pytest.mark.parametrize(("settings", "read", "other"), [({}, "c5", "c4"), ({"reads": "c4"}, "c4", "c5")])
def test_the_coarsest_feature_is_read_unless_another_is_named(settings, read, other):
    head, features = small(**settings), levels()
    head.eval()
    before = head(features, (64, 64))["probs"].numpy()
    assert head.reads == (read,)
    np.testing.assert_array_equal(before, head(features | {other: features[other] + 1}, (64, 64))["probs"].numpy())
    assert (before != head(features | {read: features[read] + 1}, (64, 64))["probs"].numpy()).any()


def test_of_two_coarsest_features_one_has_to_be_named():
    both = specs(8, 16) | {"p5": FeatureSpec(4, 32)}
    with pytest.raises(ValueError, match=r"CBAMFC: .* several features of stride 32 \(c5, p5\); .*reads"):
        CBAMFC(both, 7)
    assert CBAMFC(both, 7, reads="p5").reads == ("p5",)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        small(kernel_size=2)


def test_shares_of_one_class_are_that_class_and_of_two_the_weighted_losses():
    logits, index = paddle.randn([2, 5]), paddle.to_tensor([3, 1])
    shares = paddle.to_tensor([[0, 0, 0, 1.0, 0], [0, 0.25, 0, 0, 0.75]])
    for smoothing in (0.0, 0.1):
        one, both, other = (
            float(class_cross_entropy(logits[i : i + 1], {"class_index": label} | extra, smoothing))
            for i, label, extra in (
                (0, index[:1], {}), (1, index[1:], {"class_shares": shares[1:]}), (1, paddle.to_tensor([4]), {})
            )
        )  # fmt: skip
        first = float(class_cross_entropy(logits[1:], {"class_index": index[1:]}, smoothing))
        assert both == pytest.approx(0.25 * first + 0.75 * other, rel=1e-5)
        whole = float(class_cross_entropy(logits, {"class_index": index, "class_shares": shares}, smoothing))
        assert whole == pytest.approx((one + both) / 2, rel=1e-5)
