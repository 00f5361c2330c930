"""Weighted boxes fusion equals ensemble-boxes bit for bit and refuses what that package would swallow."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppmtl.ops import wbf
from ppmtl.ops.wbf import weighted_boxes_fusion
from ppmtl.ops.wbf_groups import joined, touching

BOX = [0.1, 0.1, 0.3, 0.3]


def _golden_cases():
    """The cases of the settings that are in use: two confidence types, every view of weight 1, no overflow."""
    cases = json.loads((Path(__file__).parents[1] / "golden" / "wbf.json").read_text())["cases"]
    for case in cases:
        given = case["in"]
        if given["conf_type"] in ("avg", "max") and not given["weights"] and not given.get("allows_overflow"):
            yield pytest.param(given, case["out_numpy2"], id=given["name"])


GOLDEN = list(_golden_cases())


def _reference(boxes_list, scores_list, labels_list, threshold, confidence_type):
    """The published rule, one box after the other: slow, and written without the code under test."""
    groups = {}
    for boxes, scores, labels in zip(boxes_list, scores_list, labels_list, strict=True):
        for (xa, ya, xb, yb), score, label in zip(boxes, scores, labels, strict=True):
            x1, x2 = np.clip(sorted([float(xa), float(xb)]), 0, 1)
            y1, y2 = np.clip(sorted([float(ya), float(yb)]), 0, 1)
            if (x2 - x1) * (y2 - y1) != 0:
                groups.setdefault(int(label), []).append([float(score), x1, y1, x2, y2])
    rows = []
    for label, group in groups.items():
        group = np.array(group)
        clusters, fused = [], np.zeros((0, 4))
        for row in group[group[:, 0].argsort()[::-1]]:
            low, high = np.maximum(fused[:, :2], row[1:3]), np.minimum(fused[:, 2:], row[3:])
            inter = np.prod(np.maximum(high - low, 0), axis=1)
            area = (row[3] - row[1]) * (row[4] - row[2])
            iou = inter / ((fused[:, 2] - fused[:, 0]) * (fused[:, 3] - fused[:, 1]) + area - inter)
            best = int(np.argmax(iou)) if len(iou) else -1
            if best < 0 or iou[best] <= threshold:
                clusters.append([row])
                fused = np.vstack([fused, row[1:]])
                continue
            clusters[best].append(row)
            total = np.zeros(4, np.float32)
            for member in clusters[best]:
                total += member[0] * member[1:]
            total /= sum(member[0] for member in clusters[best])
            fused[best] = total
        for members, box in zip(clusters, fused, strict=True):
            scores, n = [member[0] for member in members], len(members)
            score = max(scores) if confidence_type == "max" else sum(scores) / n
            score = float(np.float32(score)) if n > 1 else score
            if confidence_type == "avg":
                score = score * min(len(boxes_list), n) / len(boxes_list)
            rows.append([label, score, *box])
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


@pytest.mark.parametrize("given, expected", GOLDEN)
def test_golden_cases_of_ensemble_boxes_under_numpy_2_are_equal_bit_for_bit(given, expected):
    kept = [np.asarray(scores) >= given["skip_box_thr"] for scores in given["scores"]]
    lists = ([np.asarray(v)[k] for v, k in zip(given[key], kept, strict=True)] for key in ("boxes", "scores", "labels"))
    got = weighted_boxes_fusion(*lists, iou_threshold=given["iou_thr"], confidence_type=given["conf_type"])
    assert [values.dtype for values in got] == [np.float64, np.float64, np.int64]
    boxes = [[np.nan if v is None else v for v in box] for box in expected["boxes"]]
    _check_equal(got, (np.reshape(boxes, (-1, 4)), expected["scores"], expected["labels"]))


def test_the_golden_cases_of_the_settings_in_use_are_there():
    assert len(GOLDEN) == 15


@pytest.mark.parametrize("seed", range(40))
def test_random_views_equal_the_rule_applied_box_by_box(seed):
    rng = np.random.default_rng(seed)
    views, count = int(rng.integers(1, 10)), int(rng.choice([1, 5, 30, 90]))
    lists = _views(rng, views, count, int(rng.choice([1, 3, 45])), float(rng.choice([0.3, 1.0])), seed % 4 == 3)
    threshold, confidence_type = float(rng.choice([0.0, 0.1, 0.4, 0.55, 0.8, 1.0])), ("avg", "max")[seed // 4 % 2]
    copies = [[values.copy() for values in column] for column in lists]
    got = weighted_boxes_fusion(*lists, iou_threshold=threshold, confidence_type=confidence_type)
    _check_equal(got, _reference(*lists, threshold, confidence_type))
    for column, copy in zip(lists, copies, strict=True):  # what was given is left as it is
        _check_equal(column, copy)


@pytest.mark.parity
@pytest.mark.parametrize("confidence_type", ["avg", "max"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_installed_ensemble_boxes_agrees_bit_for_bit(confidence_type, dtype):
    reference = pytest.importorskip("ensemble_boxes").weighted_boxes_fusion
    boxes, scores, labels = _views(np.random.default_rng(7), 6, 200, 10, 0.8)
    lists = [box.clip(0, 1).astype(dtype) for box in boxes], [score.astype(dtype) for score in scores], labels
    expected = reference(*lists, iou_thr=0.6, conf_type=confidence_type)
    _check_equal(weighted_boxes_fusion(*lists, iou_threshold=0.6, confidence_type=confidence_type), expected)


def test_groups_that_a_fused_box_joins_afterwards_are_fused_again(monkeypatch):
    """A fused box between two others reaches a box that neither of them reaches: without the second look this fails."""
    calls = []
    original = wbf._fused
    monkeypatch.setattr(wbf, "_fused", lambda *args: (calls.append(1), original(*args))[1])
    rng = np.random.default_rng(0)
    repeated = 0
    for _ in range(20):
        lists = _views(rng, 3, 60, 1, 0.3)
        calls.clear()
        got = weighted_boxes_fusion(*lists, iou_threshold=0.4)
        repeated += len(calls) > 1
        _check_equal(got, _reference(*lists, 0.4, "avg"))
    assert repeated >= 3


def test_zero_scores_fuse_to_nan_and_attract_their_class_as_in_the_reference():
    rng = np.random.default_rng(1)
    boxes, scores, labels = _views(rng, 3, 40, 2, 0.5)
    scores = [np.where(rng.random(len(s)) < 0.5, 0.0, s) for s in scores]
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = _reference(boxes, scores, labels, 0.5, "avg")
    assert np.isnan(expected[0]).any()
    _check_equal(weighted_boxes_fusion(boxes, scores, labels, iou_threshold=0.5), expected)


def test_no_views_and_nothing_but_dropped_boxes_give_empty_arrays():
    line = [[0.2, 0.1, 0.2, 0.9]]
    for lists in (([], [], []), ([[]], [[]], [[]]), ([line], [[0.9]], [[3]])):
        boxes, scores, labels = weighted_boxes_fusion(*lists)
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
        assert labels.dtype == np.int64


@pytest.mark.parametrize(
    "boxes, scores, labels, options, message",
    [
        (
            [[BOX], [BOX, [0, 0, np.nan, 1]]],
            [[1], [1, 1]],
            [[0], [0, 0]],
            {},
            r"view 1, row 1: boxes must be fractions",
        ),
        ([[BOX]], [[np.inf]], [[0]], {}, r"view 0, row 0: .* scores finite, got .* with score inf"),
        (
            [[[10, 20, 300, 400]]],
            [[0.5]],
            [[0]],
            {},
            r"view 0, row 0: boxes must be fractions 0\.\.1 .* \(x divided by",
        ),
        ([[BOX]], [[0.5, 0.4]], [[0]], {}, r"view 0: boxes \(N, 4\)"),
        ([[BOX]], [[0.5]], [[]], {}, r"view 0: boxes \(N, 4\)"),
        ([[BOX]], [[0.5], [0.5]], [[0]], {}, "argument 3 is longer"),
        ([[BOX]], [[0.5]], [[0]], {"iou_threshold": 1.5}, r"iou_threshold must be 0\.\.1, got 1\.5"),
    ],
)
def test_broken_input_is_refused_with_view_and_row(boxes, scores, labels, options, message):
    with pytest.raises(ValueError, match=message):
        weighted_boxes_fusion(boxes, scores, labels, **options)


@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_touching_pairs_are_found(seed):
    rng = np.random.default_rng(seed)
    ranks, begins = rng.integers(0, 3, 80), rng.random((3, 80))
    ends = begins + rng.lognormal(-2, 1, (3, 80))
    touch = ((begins[:, :, None] <= ends[:, None]) & (begins[:, None] <= ends[:, :, None])).all(axis=0)
    expected = np.argwhere(np.triu(touch & (ranks[:, None] == ranks), 1)).tolist()
    assert sorted(sorted(pair) for pair in touching(ranks, (begins, ends)).T.tolist()) == expected


def test_groups_connected_by_pairs_are_joined_and_named_by_their_smallest_member():
    alone = np.arange(6)
    assert joined(alone, np.array([4, 3, 0]), np.array([3, 1, 5])).tolist() == [0, 1, 2, 1, 1, 0]
    assert alone.tolist() == [0, 1, 2, 3, 4, 5]
    assert not joined(np.arange(1000), np.arange(1, 1000), np.arange(999)).any()
    assert joined(np.array([0, 0, 2, 2]), np.array([3]), np.array([1])).tolist() == [0, 0, 0, 0]
