"""Weighted boxes fusion: merges the boxes of several views of one image into averaged ones.

Per class, best box first: a box joins the fused box that it overlaps most, or opens a new cluster. A fused box is the
mean of its members, weighted by score.

Source: Solovyev et al. 2021, "Weighted boxes fusion", sec. 3. Bit-identical to ensemble-boxes 1.0.9 under numpy >= 2,
at less than a tenth of its time (tools/benchmark.py), because many groups of boxes that cannot influence one another
(wbf_groups.py) are fused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ppmtl.ops.wbf_groups import hulls, joined, neighbours, reach, touching, turns

ConfidenceType = Literal["avg", "max"]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]

_FAR_OUT = 10.0  # beyond this a coordinate is a pixel, not a fraction; the reference would clip it to 1 in silence


def weighted_boxes_fusion(
    boxes_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    *,
    iou_threshold: float = 0.55,
    confidence_type: ConfidenceType = "avg",
) -> Arrays:
    """Fuses the boxes of several views.

    Args:
        boxes_list: per view (N, 4) xyxy divided by image width and height; swapped corners are put right, what lies
            outside 0..1 is clipped, boxes without area are dropped.
        scores_list: per view (N,).
        labels_list: per view (N,) class indices; boxes of different classes never merge.
        iou_threshold: 0..1; a box joins the fused box that it overlaps most if the IoU is strictly above.
        confidence_type: a cluster's score: "avg" the mean, less if it has fewer boxes than there are views; "max" the
            maximum.

    Returns:
        boxes (n, 4) float64, scores (n,) float64 and labels (n,) int64, best first. Two overlapping boxes that both
        score 0 fuse to NaN coordinates, as in the reference.

    Raises:
        ValueError: lengths differ, a box or score is not finite or a coordinate is in pixels (naming view and row), or
            ``iou_threshold`` is out of range.
    """
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be 0..1, got {iou_threshold}")
    views = [_checked(*view) for view in zip(range(len(boxes_list)), boxes_list, scores_list, labels_list, strict=True)]
    boxes, scores, labels = _prefiltered(views)
    if not len(scores):
        return np.zeros((0, 4)), scores, labels
    founder, fused, score_sum = _clustered(boxes, scores, labels, iou_threshold)
    founders, size = np.unique(founder, return_counts=True)  # in the reference's order: class, then birth
    confidence = scores[founders] if confidence_type == "max" else score_sum[founders] / size
    # Rows that the reference fuses go through float32; a box that stays alone keeps its float64.
    confidence = np.where(size > 1, confidence.astype(np.float32), confidence)
    if confidence_type == "avg":
        confidence = confidence * np.minimum(len(views), size) / len(views)
    best = confidence.argsort()[::-1]
    return fused[:, founders[best]].T, confidence[best], labels[founders[best]]


def _checked(view: int, boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike) -> Arrays:
    box, score, label = np.asarray(boxes, np.float64), np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    box = box if box.size else box.reshape(-1, 4)
    if box.shape != (len(box), 4) or score.shape != (len(box),) or label.shape != (len(box),):
        raise ValueError(
            f"view {view}: boxes (N, 4), scores (N,) and labels (N,) are needed, got {box.shape}, {score.shape} and "
            f"{label.shape}"
        )
    if not (usable := (np.abs(box) <= _FAR_OUT).all(axis=1) & np.isfinite(score)).all():
        row = int(usable.argmin())
        raise ValueError(
            f"view {view}, row {row}: boxes must be fractions 0..1 of the image (x divided by its width, y by its "
            f"height) and scores finite, got {box[row].tolist()} with score {score[row]}"
        )
    return box, score, label


def _prefiltered(views: Sequence[Arrays]) -> Arrays:
    """The boxes with an area as columns (4, n), their scores and labels, in the reference's order.

    Classes come as they first appear, inside a class the best box first. Ties are numpy's: the reversed unstable
    argsort of exactly the array that the reference sorts.
    """
    empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    box, scores, labels = (np.concatenate(arrays) for arrays in zip(empty, *views, strict=True))
    x1, y1, x2, y2 = box.T.clip(0, 1)
    boxes = np.stack([np.minimum(x1, x2), np.minimum(y1, y2), np.maximum(x1, x2), np.maximum(y1, y2)])
    usable = np.flatnonzero(_area(boxes))
    _, first, inverse = np.unique(labels[usable], return_index=True, return_inverse=True)
    by_class = usable[np.argsort(first[inverse], kind="stable")]
    members = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    order = np.concatenate([part[scores[part].argsort()[::-1]] for part in members])
    return boxes[:, order], scores[order], labels[order]


def _clustered(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou_threshold: float) -> Arrays:
    """Per box the founder of its cluster, and per founder the fused box (4, n) and the sum of the scores.

    Boxes that can match form a group. That is a guess, since a fused box lies between its members and may reach a box
    that none of them reaches. So clusters that reach one another across groups are looked up afterwards; their groups
    are joined and fused again, until there are none.
    """
    if scores.min() < 1e-30:  # float32 sums vanish, 0 / 0 is NaN and attracts every later box: none is out of reach
        return _fused(labels, boxes, scores, iou_threshold)
    ranks = np.cumsum(np.diff(labels, prepend=labels[0]) != 0)  # 0, 1, ... for the classes, which come in one piece
    blocks = reach(boxes, ranks, iou_threshold)
    done, fused, score_sum = np.arange(len(scores)), boxes.copy(), scores.copy()  # at first every box by itself
    group = founder = neighbours(boxes, ranks)
    while True:
        founders, cluster_blocks = hulls(founder, blocks)
        group = joined(group, *founders[touching(ranks[founders], cluster_blocks)])
        again = np.flatnonzero(np.isin(group, group[group != done]))
        if not len(again):
            return founder, fused, score_sum
        part = _fused(group[again], boxes[:, again], scores[again], iou_threshold)
        founder[again], fused[:, again], score_sum[again] = again[part[0]], part[1], part[2]
        done = group


def _fused(group: np.ndarray, boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Arrays:
    """Clusters each group by itself: turn j handles the j-th box of every group; gives what ``_clustered`` does."""
    order, starts = turns(group)
    boxes, scores = boxes.take(order, axis=1), scores[order]
    founder, score_sum, weighted = np.arange(len(order)), scores.copy(), scores * boxes
    box_sum = weighted.astype(np.float32)  # the reference sums boxes in float32, scores in float64
    fused = np.hstack([boxes, np.full((4, 1), 2.0)])  # the last one overlaps nothing: it fills the table
    table, clusters = founder[None, : starts[1]], np.ones(starts[1], np.int64)  # founder of cluster k of group g
    with np.errstate(divide="ignore", invalid="ignore"):  # scores of 0: 0 / 0, as in the reference
        for begin, end in pairwise(starts[1:].tolist()):
            groups, width = np.arange(end - begin), clusters[: end - begin].max()
            if width == len(table):
                table = np.pad(table[:, : end - begin], ((0, width), (0, 0)), constant_values=len(order))
            iou = _iou(fused.take(table[:width, : end - begin], axis=1), boxes[:, None, begin:end])
            best = iou.argmax(axis=0)
            matches = ~(iou[best, groups] <= iou_threshold)  # so written, a NaN matches, as in the reference
            opens, joins = groups[~matches], groups[matches]
            table[clusters[opens], opens] = begin + opens
            clusters[opens] += 1
            box, target = begin + joins, table[best[joins], joins]
            founder[box] = target
            score_sum[target] += scores[box]
            total = (box_sum.take(target, axis=1) + weighted.take(box, axis=1)).astype(np.float32)
            box_sum[:, target], fused[:, target] = total, (total / score_sum[target]).astype(np.float32)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return order[founder[back]], fused.take(back, axis=1), score_sum[back]


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    width, height = np.maximum(np.minimum(boxes[2:], others[2:]) - np.maximum(boxes[:2], others[:2]), 0)
    inter = width * height
    iou: np.ndarray = inter / (_area(boxes) + _area(others) - inter)
    return iou


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    return area
