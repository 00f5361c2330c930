"""The segmentation head: wiring against PaddleSeg's numbers, parameter counts, losses, sizes that do not divide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_weights import assert_equals_summary, parameter_count, seeded
from levels import random_features, specs
from paddleseg_names import paddleseg_name

from ppmtl.models.heads._pixel_loss import pixel_cross_entropy
from ppmtl.models.heads.upernet import UPerNet

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "upernet_forward.json").read_text())


CHANNELS = (8, 16, 24, 32)


def small(**changes) -> UPerNet:
    paddle.seed(0)
    return UPerNet(specs(*CHANNELS), 5, **({"channels": 12} | changes))


EVEN = ((16, 16), (8, 8), (4, 4), (2, 2))
ODD = ((45, 80), (22, 40), (11, 20), (5, 10))


def features(sizes: tuple[tuple[int, int], ...], batch: int = 1) -> dict[str, paddle.Tensor]:
    return random_features(CHANNELS, sizes, batch, seed=11)


def logits(head: UPerNet, sizes: tuple[tuple[int, int], ...]) -> paddle.Tensor:
    return head.logits(list(features(sizes).values()))


def golden_value(key: str, shape: list[int]) -> np.ndarray:
    value = 0.1 * seeded(key, shape)
    if key.endswith("_variance"):
        value = 1 + np.abs(value)
    elif key.endswith("_batch_norm.weight"):
        value = 1 + value
    return value.astype(np.float32)


@pytest.fixture(scope="module")
def golden_head() -> UPerNet:
    head = small()
    state = head.state_dict()
    head.set_state_dict(
        {key: paddle.to_tensor(golden_value(paddleseg_name(key), list(value.shape))) for key, value in state.items()}
    )
    head.eval()
    return head


def test_all_of_paddlesegs_tensors_have_their_place_except_the_dead_branch(golden_head):
    names = sorted(paddleseg_name(key) for key in golden_head.state_dict())
    assert names == sorted(key for key in GOLDEN["keys"] if not key.startswith("conv_last."))


def test_logits_equal_paddleseg_at_sizes_that_do_not_divide(golden_head):
    main, aux = GOLDEN["out"]
    # float32 convolutions: rounding differs with the order of summation
    assert_equals_summary(logits(golden_head, ODD).numpy(), main, rtol=2e-5)
    assert_equals_summary(golden_head.aux(features(ODD)["c4"]).numpy(), aux, rtol=2e-5)


def test_parameter_counts_are_paddlesegs_less_the_dead_branch():
    head = UPerNet(specs(192, 384, 768, 1536), 19)
    assert parameter_count(head) == 48_516_665 - 9_447_955 == 39_068_710
    assert parameter_count(head.aux) == 5_325_331
    assert parameter_count(head.ppm) + parameter_count(head.ppm_bottleneck) == 16_521_216
    assert parameter_count(head.laterals) == 692_736
    assert parameter_count(head.fpn_convs) == 7_080_960
    assert parameter_count(head.fpn_bottleneck) == 9_438_720
    assert parameter_count(UPerNet(specs(192, 384, 768, 1536), 19, aux_weight=0)) == 33_743_379


def test_probabilities_come_at_input_size_and_sum_to_one(golden_head):
    probs = golden_head(features(ODD), (180, 323))["probs"]
    assert list(probs.shape) == [1, 5, 180, 323]
    np.testing.assert_allclose(probs.numpy().sum(axis=1), 1, atol=1e-5)
    expected = paddle.nn.functional.interpolate(
        logits(golden_head, ODD), size=[180, 323], mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(probs.numpy(), paddle.nn.functional.softmax(expected, axis=1).numpy(), atol=1e-6)


def test_a_crop_without_labelled_pixels_costs_nothing_and_gives_no_nan():
    head = small()
    terms = head(features(EVEN, batch=2), (64, 64), {"label_map": paddle.full([2, 64, 64], 255, "int64")})
    assert {name: float(term) for name, term in terms.items()} == {"loss_ce": 0.0, "loss_aux": 0.0}
    sum(terms.values()).backward()
    for name, parameter in head.named_parameters():
        if not parameter.stop_gradient:
            assert (parameter.grad.numpy() == 0).all(), name


def test_the_loss_is_the_mean_over_labelled_pixels_only():
    scores = np.random.RandomState(0).randn(2, 3, 4, 6).astype(np.float32)
    labels = np.random.RandomState(1).randint(0, 3, (2, 4, 6))
    labels[0, :3] = 255
    shifted = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    picked = [-shifted[b, labels[b, y, x], y, x] for b, y, x in np.argwhere(labels != 255)]
    assert len(picked) == 2 * 24 - 18
    value = pixel_cross_entropy(paddle.to_tensor(scores), paddle.to_tensor(labels))
    assert list(value.shape) == []
    assert float(value) == pytest.approx(np.mean(picked), rel=1e-5)


def test_the_auxiliary_term_is_weighted_and_can_be_left_out():
    levels, targets = features(EVEN, batch=2), {"label_map": paddle.zeros([2, 64, 64], "int64")}
    by_weight = {}
    for weight in (0.4, 0.8):
        head = small(aux_weight=weight, dropout=0.0)
        by_weight[weight] = float(head(levels, (64, 64), targets)["loss_aux"])
    assert by_weight[0.8] == pytest.approx(2 * by_weight[0.4], rel=1e-5)
    levels["c4"].stop_gradient = False
    small()(levels, (64, 64), targets)["loss_aux"].backward()
    assert levels["c4"].grad.numpy().any()  # it trains the backbone, not only its own head
    assert list(small(aux_weight=0)(levels, (64, 64), targets)) == ["loss_ce"]


def test_corner_alignment_is_a_setting_that_changes_the_result():
    aligned, not_aligned = small(), small(align_corners=False)
    not_aligned.set_state_dict(aligned.state_dict())
    aligned.eval()
    not_aligned.eval()
    assert np.abs(logits(aligned, ODD).numpy() - logits(not_aligned, ODD).numpy()).max() > 1e-3


def test_one_image_can_train_although_its_coarsest_pooled_map_is_one_pixel():
    head = small()
    levels, targets = features(EVEN), {"label_map": paddle.zeros([1, 64, 64], "int64")}
    sum(head(levels, (64, 64), targets).values()).backward()
    bin_one = head.ppm[0].bn.weight.grad.numpy()
    assert bin_one.any()  # Paddle's batch norm would have skipped its scale and shift without a word


def test_two_of_four_features_are_enough_and_the_others_are_not_looked_at():
    head = small(reads=("c2", "c4"))
    two = {name: level for name, level in features(EVEN, batch=2).items() if name in head.reads}
    assert len(head.laterals) == 1
    terms = head(two, (64, 64), {"label_map": paddle.zeros([2, 64, 64], "int64")})
    assert list(terms) == ["loss_ce", "loss_aux"]  # the auxiliary loss is on the second coarsest that it reads: c2
    assert head.aux[0].conv.weight.shape[1] == CHANNELS[0]
    head.eval()
    assert head(two, (64, 64))["probs"].shape == [2, 5, 64, 64]


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        (("c2", "c6"), r"UPerNet: reads 'c6'.*c2.*c3.*c4.*c5"),
        (("c5",), "at least two levels.* got strides {'c5': 32}"),
        (("c4", "c2"), "finest first.* got strides {'c4': 16, 'c2': 4}"),
    ],
)
def test_features_that_it_cannot_read_are_refused(reads, message):
    with pytest.raises(ValueError, match=message):
        small(reads=reads)
