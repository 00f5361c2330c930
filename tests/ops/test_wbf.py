"""Weighted boxes fusion equals ensemble-boxes bit for bit and refuses what that package would swallow."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppmtl.ops import wbf_clusters
from ppmtl.ops.separate import Sweep, components
from ppmtl.ops.wbf import weighted_boxes_fusion

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "wbf.json").read_text())["cases"]
TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
BOX = [0.1, 0.1, 0.3, 0.3]


def _reference(boxes_list, scores_list, labels_list, weights, threshold, confidence_type, overflow):
    """The published rule, one box after the other: slow, and written without the code under test."""
    weights = np.ones(len(boxes_list)) if weights is None else np.asarray(weights, np.float64)
    groups = {}
    for view, (boxes, scores, labels) in enumerate(zip(boxes_list, scores_list, labels_list, strict=True)):
        for (xa, ya, xb, yb), score, label in zip(boxes, scores, labels, strict=True):
            x1, x2 = np.clip(sorted([float(xa), float(xb)]), 0, 1)
            y1, y2 = np.clip(sorted([float(ya), float(yb)]), 0, 1)
            if (x2 - x1) * (y2 - y1) != 0:
                row = [float(score) * weights[view], weights[view], view, x1, y1, x2, y2]
                groups.setdefault(int(label), []).append(row)
    rows = []
    for label, group in groups.items():
        group = np.array(group)
        clusters, fused = [], np.zeros((0, 4))
        for row in group[group[:, 0].argsort()[::-1]]:
            low, high = np.maximum(fused[:, :2], row[3:5]), np.minimum(fused[:, 2:], row[5:])
            inter = np.prod(np.maximum(high - low, 0), axis=1)
            area = (row[5] - row[3]) * (row[6] - row[4])
            iou = inter / ((fused[:, 2] - fused[:, 0]) * (fused[:, 3] - fused[:, 1]) + area - inter)
            best = int(np.argmax(iou)) if len(iou) else -1
            if best < 0 or iou[best] <= threshold:
                clusters.append([row])
                fused = np.vstack([fused, row[3:]])
                continue
            clusters[best].append(row)
            total = np.zeros(4, np.float32)
            for member in clusters[best]:
                total += member[0] * member[3:]
            total /= sum(member[0] for member in clusters[best])
            fused[best] = total
        for members, box in zip(clusters, fused, strict=True):
            members = np.array(members)
            n = len(members)
            conf = sum(members[:, 0].tolist()) / n if confidence_type != "max" else members[:, 0].max()
            weight = sum(members[:, 1].tolist())
            if n > 1:
                conf, weight = float(np.float32(conf)), float(np.float32(weight))
            present = np.unique(members[:, 2].astype(int))
            if confidence_type == "max":
                conf = conf / weights.max()
            elif confidence_type == "box_and_model_avg":
                conf = conf * n / weight * weights[present].sum() / weights.sum()
            elif confidence_type == "absent_model_aware_avg":
                absent = np.setdiff1d(np.arange(len(weights)), present)
                conf = conf * n / (weight + weights[absent].sum())
            else:
                conf = conf * (n if overflow else min(len(weights), n)) / weights.sum()
            rows.append([label, conf, *box])
    rows = np.array(rows).reshape(-1, 6)
    rows = rows[rows[:, 1].argsort()[::-1]]
    return rows[:, 2:], rows[:, 1], rows[:, 0]


def _views(rng, views, count, classes, spread, rounded=False):
    """Boxes as test-time augmentation yields them: the same objects seen again with jitter, and false ones."""
    centre, size = rng.random((count, 2)), rng.lognormal(-3, spread, (count, 2)).clip(0.004, 0.6)
    label = rng.integers(0, classes, count)
    result = [], [], []
    for _ in range(views):
        pick = rng.integers(0, count, count)
        at = centre[pick] + rng.normal(0, 0.12, (count, 2)) * size[pick]
        half = size[pick] * np.exp(rng.normal(0, 0.15, (count, 2))) / 2
        boxes, scores = np.hstack([at - half, at + half]), rng.beta(0.3, 3, count).clip(0.001)
        if rounded:
            boxes, scores = np.round(boxes * 24) / 24, np.round(scores, 1) + 0.1
        for values, kept in zip((boxes, scores, label[pick]), result, strict=True):
            kept.append(values)
    return result


def _check_equal(got, expected):
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == np.shape(theirs)
        np.testing.assert_array_equal(ours, theirs, strict=False)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["in"]["name"])
def test_golden_cases_of_ensemble_boxes_under_numpy_2_are_equal_bit_for_bit(case):
    given, expected = case["in"], case["out_numpy2"]
    arguments = given["boxes"], given["scores"], given["labels"], given["weights"]
    options = {
        "iou_threshold": given["iou_thr"],
        "skip_box_threshold": given["skip_box_thr"],
        "confidence_type": given["conf_type"],
        "allows_overflow": given.get("allows_overflow", False),
    }
    if given["name"] == "weights_wrong_length_become_ones":
        with pytest.raises(ValueError, match="one per view, got 1 for 2"):  # the reference prints and goes on
            weighted_boxes_fusion(*arguments, **options)
        return
    boxes, scores, labels = weighted_boxes_fusion(*arguments, **options)
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float64, np.float64, np.int64)
    as_numbers = [[np.nan if v is None else v for v in box] for box in expected["boxes"]]
    _check_equal((boxes, scores, labels), (np.reshape(as_numbers, (-1, 4)), expected["scores"], expected["labels"]))


def test_all_golden_cases_are_there():
    assert len(GOLDEN) == 29


@pytest.mark.parametrize("seed", range(40))
def test_random_views_equal_the_rule_applied_box_by_box(seed):
    rng = np.random.default_rng(seed)
    views, count = int(rng.integers(1, 10)), int(rng.choice([1, 5, 30, 90]))
    lists = _views(rng, views, count, int(rng.choice([1, 3, 45])), float(rng.choice([0.3, 1.0])), seed % 4 == 3)
    weights = (None, rng.uniform(0.1, 2, views).tolist(), rng.integers(1, 4, views).tolist())[seed % 3]
    threshold = float(rng.choice([0.0, 0.1, 0.4, 0.55, 0.8, 1.0]))
    settings = {"confidence_type": TYPES[seed % len(TYPES)], "allows_overflow": bool(rng.integers(2))}
    expected = _reference(*lists, weights, threshold, *settings.values())
    _check_equal(weighted_boxes_fusion(*lists, weights, iou_threshold=threshold, **settings), expected)


@pytest.mark.parametrize("confidence_type", TYPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_installed_ensemble_boxes_agrees_bit_for_bit(confidence_type, dtype):
    reference = pytest.importorskip("ensemble_boxes").weighted_boxes_fusion
    rng = np.random.default_rng(7)
    boxes, scores, labels = _views(rng, 6, 200, 10, 0.8)
    lists = [box.clip(0, 1).astype(dtype) for box in boxes], [score.astype(dtype) for score in scores], labels
    expected = reference(*lists, [1, 1, 2, 1, 0.5, 1], 0.6, 0.01, confidence_type)
    got = weighted_boxes_fusion(
        *lists, [1, 1, 2, 1, 0.5, 1], iou_threshold=0.6, skip_box_threshold=0.01, confidence_type=confidence_type
    )
    _check_equal(got, expected)


def test_groups_that_a_fused_box_joins_afterwards_are_done_again(monkeypatch):
    """A fused box between two others reaches a box that neither of them reaches: without the repair this fails."""
    calls = []
    original = wbf_clusters._lockstep
    monkeypatch.setattr(wbf_clusters, "_lockstep", lambda *args: (calls.append(1), original(*args))[1])
    rng = np.random.default_rng(0)
    repaired = 0
    for _ in range(20):
        lists = _views(rng, 3, 60, 1, 0.3)
        calls.clear()
        got = weighted_boxes_fusion(*lists, iou_threshold=0.4)
        repaired += len(calls) > 1
        _check_equal(got, _reference(*lists, None, 0.4, "avg", False))
    assert repaired >= 3


def test_zero_scores_fuse_to_nan_and_attract_their_class_as_in_the_reference():
    rng = np.random.default_rng(1)
    boxes, scores, labels = _views(rng, 3, 40, 2, 0.5)
    scores = [np.where(rng.random(len(s)) < 0.5, 0.0, s) for s in scores]
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = _reference(boxes, scores, labels, None, 0.5, "avg", False)
    assert np.isnan(expected[0]).any()
    _check_equal(weighted_boxes_fusion(boxes, scores, labels, iou_threshold=0.5), expected)


def test_no_views_and_nothing_but_dropped_boxes_give_empty_arrays():
    line = [[0.2, 0.1, 0.2, 0.9]]
    for lists in (([], [], []), ([[]], [[]], [[]]), ([line], [[0.9]], [[3]])):
        boxes, scores, labels = weighted_boxes_fusion(*lists)
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
        assert labels.dtype == np.int64


def test_inputs_are_left_as_they_are():
    lists = _views(np.random.default_rng(2), 2, 10, 2, 0.5)
    copies = [[values.copy() for values in column] for column in lists]
    weighted_boxes_fusion(*lists)
    for column, copy in zip(lists, copies, strict=True):
        for before, after in zip(copy, column, strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "boxes, scores, labels, message",
    [
        ([[BOX], [BOX, [0, 0, np.nan, 1]]], [[1], [1, 1]], [[0], [0, 0]], r"view 1, row 1: boxes must be finite"),
        ([[BOX]], [[np.inf]], [[0]], r"view 0, row 0: scores must be finite, got \[inf\]"),
        ([[BOX]], [[0.5]], [[np.nan]], r"view 0, row 0: labels must be finite"),
        ([[BOX]], [[0.5, 0.4]], [[0]], r"view 0: boxes \(N, 4\)"),
        ([[BOX]], [[0.5]], [[]], r"view 0: boxes \(N, 4\)"),
        ([[BOX]], [[0.5], [0.5]], [[0]], r"one length \(the views\), got \(1, 2, 1\)"),
        ([[[10, 20, 300, 400]]], [[0.5]], [[0]], r"view 0, row 0: boxes must be fractions 0\.\.1 .* divide x"),
    ],
)
def test_broken_input_is_refused_with_list_and_row(boxes, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        weighted_boxes_fusion(boxes, scores, labels)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"iou_threshold": 1.5}, r"iou_threshold must be 0\.\.1, got 1\.5"),
        ({"confidence_type": "mean"}, "confidence_type must be one of"),
        ({"weights": [0.0]}, "not all 0"),
        ({"weights": [-1.0]}, ">= 0"),
        ({"weights": [np.nan]}, "finite"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        weighted_boxes_fusion([[BOX]], [[0.5]], [[0]], **options)


@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_finds_exactly_the_touching_pairs(seed):
    rng = np.random.default_rng(seed)
    labels, other_labels = rng.integers(0, 3, 80), rng.integers(0, 3, 30)

    def blocks(count):
        begins = rng.random((3, count))
        return begins, begins + rng.lognormal(-2, 1, (3, count))

    ours, theirs = blocks(80), blocks(30)

    def touch(labels_a, a, labels_b, b):
        meet = (a[0][:, :, None] <= b[1][:, None]) & (b[0][:, None] <= a[1][:, :, None])
        return meet.all(axis=0) & (labels_a[:, None] == labels_b)

    sweep = Sweep(labels, ours)
    expected = {(i, j) for i, j in np.argwhere(touch(labels, ours, labels, ours)).tolist() if i < j}
    assert {tuple(sorted(pair)) for pair in np.column_stack(sweep.pairs()).tolist() if len(set(pair)) > 1} == expected
    found = np.column_stack(sweep.touched_by(other_labels, theirs)).tolist()
    assert set(map(tuple, found)) == set(map(tuple, np.argwhere(touch(other_labels, theirs, labels, ours)).tolist()))


def test_components_number_what_hangs_together():
    assert components(6, np.array([4, 3, 0]), np.array([3, 1, 5])).tolist() == [0, 1, 2, 1, 1, 0]
    chain = np.arange(999)
    assert not components(1000, chain + 1, chain).any()
    assert components(3, chain[:0], chain[:0]).tolist() == [0, 1, 2]
