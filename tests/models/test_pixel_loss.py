"""The fused pixel loss equals Paddle's operators, and refuses what they refuse."""

import numpy as np
import paddle
import pytest

from ppmtl.models.heads import _pixel_loss

pytest.importorskip("numba")


def both(logits: np.ndarray, labels: np.ndarray, align_corners: bool = False) -> list[tuple[float, np.ndarray]]:
    results = []
    for way in (_pixel_loss._fused_sum, _pixel_loss._sum):
        tensor = paddle.to_tensor(logits, stop_gradient=False)
        loss = way(tensor, paddle.to_tensor(labels), align_corners)
        (3 * loss).backward()
        results.append((float(loss), tensor.grad.numpy()))
    return results


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("logits", "labels"), [((2, 5, 4, 6), (32, 48)), ((1, 19, 7, 9), (20, 11)), ((2, 3, 1, 1), (5, 4)), ((1, 2, 9, 8), (3, 2))]
)  # fmt: skip
def test_loss_and_gradient_equal_the_operators(logits, labels, align_corners) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, logits[1], (logits[0], *labels))
    classes[rng.random(classes.shape) < 0.3] = 255
    # Not larger: from 64 on Paddle's softmax clips differences of logits on CPU
    ours, reference = both(5 * rng.standard_normal(logits, np.float32), classes, align_corners)
    assert ours[0] == pytest.approx(reference[0], rel=1e-5)
    np.testing.assert_allclose(ours[1], reference[1], rtol=0, atol=1e-5 * np.abs(reference[1]).max())


def test_without_a_label_loss_and_gradient_are_zero() -> None:
    loss, gradient = both(np.ones((1, 3, 2, 2), np.float32), np.full((1, 4, 4), 255))[0]
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_not_hidden(value: float) -> None:
    logits = np.zeros((1, 3, 4, 4), np.float32)
    logits[0, 1, 2, 2] = value
    assert not np.isfinite(both(logits, np.zeros((1, 8, 8), np.int64))[0][0])


@pytest.mark.parametrize("value", [-1, 3, 99])
def test_a_label_that_is_no_class_is_refused(value: int) -> None:
    labels = np.zeros((1, 4, 4), np.int64)
    labels[0, 1, 1] = value
    with pytest.raises(ValueError, match=r"0 to 2, or 255; got \["):
        _pixel_loss._fused_sum(paddle.zeros([1, 3, 2, 2]), paddle.to_tensor(labels), False)
