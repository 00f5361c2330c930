"""Weighted boxes fusion: merges the boxes of several views or models into averaged ones.

Source: Solovyev et al. 2021, "Weighted boxes fusion", sec. 3. Bit-identical to ensemble-boxes 1.0.9 under
numpy >= 2, at about a tenth of its time (tools/benchmark.py). This file checks the boxes, orders them and makes the
scores; wbf_clusters.py decides which boxes belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ppmtl.ops.wbf_clusters import box_area, cluster_boxes

ConfidenceType = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]

_FAR_OUT = 10.0  # beyond this a coordinate is a pixel, not a fraction; the reference would clip it to 1 in silence


def weighted_boxes_fusion(
    boxes_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    weights: Sequence[float] | None = None,
    *,
    iou_threshold: float = 0.55,
    skip_box_threshold: float = 0.0,
    confidence_type: ConfidenceType = "avg",
    allows_overflow: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the fused boxes, scores and labels, best first.

    Args:
        boxes_list: per view (N, 4) xyxy divided by image width and height; swapped corners are put right, what lies
            outside 0..1 is clipped, boxes without area are dropped.
        scores_list: per view (N,).
        labels_list: per view (N,) class indices; boxes of different classes never merge.
        weights: one per view, >= 0; None = 1 each.
        iou_threshold: 0..1; a box joins the fused box that it overlaps most if the IoU is strictly above.
        skip_box_threshold: boxes with a lower score are dropped beforehand.
        confidence_type: how a cluster's score is made: "avg" mean, "max" maximum, "box_and_model_avg" mean weighted by
            boxes and views, "absent_model_aware_avg" mean over the views with and without the box.
        allows_overflow: "avg" only: let a cluster with more boxes than views score above its mean.

    Returns:
        boxes (n, 4) float64, scores (n,) float64, labels (n,) int64. Two overlapping boxes that both score 0 fuse to
        NaN coordinates, as in the reference: keep skip_box_threshold above 0 if scores can be 0.

    Raises:
        ValueError: lengths differ, a value is not finite or a coordinate is in pixels (naming list and row), a setting
            is out of range.
    """
    view_weights = _view_weights(weights, len(boxes_list), iou_threshold, confidence_type)
    corners, scores, labels, views = _gather(boxes_list, scores_list, labels_list, skip_box_threshold)
    if not len(scores):
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    scores = scores * view_weights[views]
    label_rank = _first_seen_rank(labels)
    order = _by_label_and_score(label_rank, scores)
    corners, scores, labels, views, label_rank = (
        values[order] for values in (corners, scores, labels, views, label_rank)
    )
    founder, fused, score_sum = cluster_boxes(label_rank, corners, scores, iou_threshold)
    confidence = _confidence(founder, scores, views, score_sum, view_weights, confidence_type, allows_overflow)
    founders = np.flatnonzero(founder == np.arange(len(founder)))  # in the reference's order: class, then birth
    best = founders[confidence[founders].argsort()[::-1]]
    fused[:, 2:] *= -1
    return fused[best], confidence[best], labels[best]


def _view_weights(
    weights: Sequence[float] | None, views: int, iou_threshold: float, confidence_type: str
) -> np.ndarray:
    """Returns (views,) float64 weights, after checking the settings."""
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be 0..1, got {iou_threshold}")
    if confidence_type not in get_args(ConfidenceType):
        raise ValueError(f"confidence_type must be one of {get_args(ConfidenceType)}, got {confidence_type!r}")
    if weights is None:
        return np.ones(views)
    if len(weights) != views:
        raise ValueError(f"weights must be one per view, got {len(weights)} for {views} views")
    result = np.asarray(weights, np.float64)
    if not np.isfinite(result).all() or (result < 0).any() or (views and not result.any()):
        raise ValueError(f"weights must be finite, >= 0 and not all 0, got {list(weights)}")
    return result


def _gather(
    boxes_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    skip_box_threshold: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns corners (x1, y1, -x2, -y2), scores, labels and view numbers of all usable boxes, in input order."""
    if not len(boxes_list) == len(scores_list) == len(labels_list):
        counts = (len(boxes_list), len(scores_list), len(labels_list))
        raise ValueError(f"boxes, scores and labels must be lists of one length (the views), got {counts}")
    parts = []
    for view, (boxes, scores, labels) in enumerate(zip(boxes_list, scores_list, labels_list, strict=True)):
        box, score, label = _checked_view(view, boxes, scores, labels)
        kept = score >= skip_box_threshold  # in the scores' own precision, as in the reference
        parts.append((box[kept], score[kept].astype(np.float64), label[kept], np.full(np.count_nonzero(kept), view)))
    if not parts:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    box, score, label, views = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    low, high = np.minimum(box[:, :2], box[:, 2:]), np.maximum(box[:, :2], box[:, 2:])
    corners = np.hstack([low.clip(0, 1), -high.clip(0, 1)])
    usable = box_area(corners) != 0
    return corners[usable], score[usable], label[usable], views[usable]


def _checked_view(
    view: int, boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score, label = np.asarray(scores), np.asarray(labels)
    box = np.asarray(boxes, np.float64)
    if box.size == 0:
        box = box.reshape(-1, 4)
    count = len(box)
    if box.shape != (count, 4) or score.shape != (count,) or label.shape != (count,):
        raise ValueError(
            f"view {view}: boxes (N, 4), scores (N,) and labels (N,) are needed, got {box.shape}, {score.shape} and "
            f"{label.shape}"
        )
    for what, values in (("boxes", box), ("scores", score.reshape(-1, 1)), ("labels", label.reshape(-1, 1))):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"view {view}, row {row}: {what} must be finite, got {values[row].tolist()}")
    far = (np.abs(box) > _FAR_OUT).any(axis=1)
    if far.any():
        row = int(far.argmax())
        raise ValueError(
            f"view {view}, row {row}: boxes must be fractions 0..1 of the picture, got {box[row].tolist()}; "
            "divide x by its width and y by its height"
        )
    return box, score, label.astype(np.int64)


def _first_seen_rank(labels: np.ndarray) -> np.ndarray:
    """Returns for each box the rank of its label in order of first appearance (the reference's dict order)."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _by_label_and_score(label_rank: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the order of boxes: by label, then best first.

    Within a label it is numpy's unstable argsort, reversed, of exactly the array that the reference sorts: tied scores
    come out in its order too.
    """
    order = np.argsort(label_rank, kind="stable")
    ends = np.cumsum(np.bincount(label_rank))
    for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        part = order[start:end]
        order[start:end] = part[scores[part].argsort()[::-1]]
    return order


def _confidence(
    founder: np.ndarray,
    scores: np.ndarray,
    views: np.ndarray,
    score_sum: np.ndarray,
    weights: np.ndarray,
    confidence_type: ConfidenceType,
    allows_overflow: bool,
) -> np.ndarray:
    """Returns the score of each founder's cluster (elsewhere: nothing of meaning)."""
    size = np.bincount(founder, minlength=len(founder))
    several = size > 1  # clusters of one keep float64, fused ones went through a float32 row
    confidence: np.ndarray
    if confidence_type == "max":  # the founder is the best
        confidence = np.where(several, scores.astype(np.float32), scores) / weights.max()
        return confidence
    mean = np.where(several, (score_sum / np.maximum(size, 1)).astype(np.float32), scores)
    if confidence_type == "avg":
        confidence = mean * (size if allows_overflow else np.minimum(len(weights), size)) / weights.sum()
        return confidence
    weight_sum = np.bincount(founder, weights[views], minlength=len(founder))
    weight_sum = np.where(several, weight_sum.astype(np.float32), weight_sum)
    seen = np.zeros((len(founder), len(weights)), bool)
    seen[founder, views] = True
    with np.errstate(divide="ignore", invalid="ignore"):  # rows that founded nothing
        if confidence_type == "box_and_model_avg":
            confidence = mean * size / weight_sum * _weight_of(seen, weights) / weights.sum()
        else:
            confidence = mean * size / (weight_sum + _weight_of(~seen, weights))
    return confidence


def _weight_of(chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the weight of each row's chosen views, summed as numpy sums just those: from 8 addends on it matters."""
    patterns, inverse = np.unique(chosen, axis=0, return_inverse=True)
    return np.array([weights[pattern].sum() for pattern in patterns])[inverse.reshape(-1)]
