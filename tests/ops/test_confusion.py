"""The confusion matrix counts exactly, refuses what it cannot count, and yields the reference's mean IoU."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppmtl.ops import confusion
from ppmtl.ops.confusion import class_iou, confusion_matrix, frequency_weighted_iou, mean_iou

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "miou.json").read_text())["cases"]


def _by_bincount(pred, label, num_classes, ignore=255):
    kept = label != ignore
    flat = label[kept].astype(np.int64) * num_classes + pred[kept]
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_mean_iou_equals_paddleseg_in_all_three_conventions_for_absent_classes(case):
    count = case["num_classes"]
    matrix = sum(
        confusion_matrix(np.uint8(pred), np.uint8(label), count)
        for pred, label in zip(case["pred"], case["label"], strict=True)
    )
    assert np.diag(matrix).tolist() == case["intersect"]
    assert matrix.sum(axis=0).tolist() == case["pred_area"]
    assert matrix.sum(axis=1).tolist() == case["label_area"]
    assert [None if np.isnan(v) else v for v in class_iou(matrix)] == case["class_iou_absent_is_null"]
    assert mean_iou(matrix) == case["miou_absent_skipped"]
    assert mean_iou(matrix, "zero") == case["miou_absent_as_0_paddleseg_2_7"]
    assert mean_iou(matrix, "one") == case["miou_absent_as_1_paddleseg_after_2023_10"]


@pytest.mark.parametrize("num_classes", [1, 2, 19, 255])
def test_counts_equal_a_masked_bincount(num_classes):
    rng = np.random.default_rng(num_classes)
    pred = rng.integers(0, num_classes, (37, 53), dtype=np.uint8)
    label = np.where(rng.random((37, 53)) < 0.2, 255, rng.integers(0, num_classes, (37, 53))).astype(np.uint8)
    matrix = confusion_matrix(pred, label, num_classes)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, _by_bincount(pred, label, num_classes))


def test_rows_are_labels_and_columns_are_predictions():
    assert confusion_matrix(np.uint8([[1]]), np.uint8([[0]]), 2).tolist() == [[0, 1], [0, 0]]


def test_wide_integers_and_views_count_like_bytes():
    rng = np.random.default_rng(0)
    pred, label = rng.integers(0, 5, (2, 20, 30))
    expected = _by_bincount(pred[:, ::2].T, label[:, ::2].T, 5)
    np.testing.assert_array_equal(confusion_matrix(pred[:, ::2].T, label[:, ::2].T, 5), expected)
    np.testing.assert_array_equal(confusion_matrix(np.uint8(pred)[:, ::2].T, np.uint8(label)[:, ::2].T, 5), expected)


def test_counts_beyond_the_exact_range_of_float32_stay_exact():
    count = 2**24 + 3
    flat = np.zeros((1, count), np.uint8)
    assert confusion_matrix(flat, flat, 1)[0, 0] == count


def test_a_small_call_limit_gives_the_same_counts(monkeypatch):
    rng = np.random.default_rng(3)
    pred, label = rng.integers(0, 4, (2, 11, 13), dtype=np.uint8)
    monkeypatch.setattr(confusion, "_PIXELS_PER_CALL", 10)
    np.testing.assert_array_equal(confusion_matrix(pred, label, 4), _by_bincount(pred, label, 4))


def test_an_empty_map_counts_nothing():
    empty = np.zeros((0, 5), np.uint8)
    assert not confusion_matrix(empty, empty, 3).any()
    assert np.isnan(mean_iou(np.zeros((3, 3), np.int64)))


@pytest.mark.parametrize(
    "pred, label, message",
    [
        ([[7]], [[255]], r"predictions must be 0\.\.4, got 7"),
        ([[255]], [[0]], r"predictions must be 0\.\.4, got 255"),
        ([[0]], [[9]], r"labels must be 0\.\.4 or 255 \(ignored\), got 9"),
        ([[0, 0]], [[0]], "same shape"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(pred, label, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.uint8(pred), np.uint8(label), 5)


def test_negative_and_fractional_predictions_are_refused():
    label = np.zeros((1, 1), np.uint8)
    with pytest.raises(ValueError, match=r"0\.\.255, got -1"):
        confusion_matrix(np.array([[-1]]), label, 5)
    with pytest.raises(ValueError, match="must be integers"):
        confusion_matrix(np.array([[0.5]]), label, 5)


def test_frequent_classes_weigh_more_and_absent_ones_nothing():
    matrix = np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]])  # IoU 6/8 of 8 pixels, 2/4 of 2
    assert frequency_weighted_iou(matrix) == pytest.approx(0.8 * 6 / 8 + 0.2 * 2 / 4)
    assert np.isnan(frequency_weighted_iou(np.zeros((3, 3), np.int64)))
