"""Which found box is which labelled one, and the confusion matrix of boxes with its background.

For people: average precision, the measure, has a matching of its own (``ops/average_precision.py``).
"""

from __future__ import annotations

import numpy as np

from ppmtl.ops.average_precision import BoxTruth
from ppmtl.ops.boxes import Detections, box_areas, iou_one_to_many


def match_boxes(found: Detections, truth: BoxTruth, iou_threshold: float) -> np.ndarray:
    """The row of ``truth.boxes`` that each found box is, (N,) int64; -1 = none of them.

    One box is one object at most. Pairs of one class go first, so that a right box is never called a mistake because
    another one lies closer; then the closest.
    """
    partners = np.full(len(found), -1, np.int64)
    if not len(found) or not len(truth.boxes):
        return partners
    iou = np.stack([iou_one_to_many(box, found.boxes) for box in truth.boxes])
    rows, columns = np.nonzero(iou >= iou_threshold)
    differ = truth.labels[rows] != found.labels[columns]
    taken = set()
    for pair in np.lexsort((-iou[rows, columns], differ)):  # the last key sorts first
        row, column = int(rows[pair]), int(columns[pair])
        if row not in taken and partners[column] < 0:
            partners[column] = row
            taken.add(row)
    return partners


def box_confusion(found: Detections, truth: BoxTruth, num_classes: int, iou_threshold: float) -> np.ndarray:
    """How often each labelled class was found as each class; matrices of several images may be added.

    Args:
        found: those that count, e.g. above a score.
        truth: labels of the same image. A box that lies in an ignored region and is no object does not count.
        num_classes: C.
        iou_threshold: boxes at least this close are one object, whatever their classes.

    Returns:
        (C + 1, C + 1) int64; row = label, column = prediction. The last row counts boxes where there is no object, the last
        column objects that were not found.
    """
    partners = match_boxes(found, truth, iou_threshold)
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    hit = partners >= 0
    np.add.at(matrix, (truth.labels[partners[hit]], found.labels[hit]), 1)
    missed = np.setdiff1d(np.arange(len(truth.boxes)), partners)
    np.add.at(matrix[:, num_classes], truth.labels[missed], 1)
    extra = found[~hit]
    np.add.at(matrix[num_classes], extra.labels[~_inside_any(extra.boxes, truth.ignored_boxes, iou_threshold)], 1)
    return matrix


def _inside_any(boxes: np.ndarray, regions: np.ndarray, share: float) -> np.ndarray:
    """Whether at least this share of a box's area lies in one of the regions, (N,) bool."""
    inside = np.zeros(len(boxes), bool)
    for region in regions:
        common = np.concatenate([np.maximum(boxes[:, :2], region[:2]), np.minimum(boxes[:, 2:], region[2:])], axis=1)
        inside |= box_areas(common) >= share * np.maximum(box_areas(boxes), np.finfo(np.float32).tiny)
    return inside


def unmatched(
    first: Detections, second: Detections, *, score: float, pixels: float, share: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes of each set the other one does not have, whatever their order: (N,) and (M,) bool.

    Two boxes are the same if they are of one class, their scores differ by ``score`` at most and every coordinate by
    ``pixels`` and ``share`` of the longer side at most. Each is matched once, the best first and with the closest.
    """
    missing, extra = np.ones(len(first), bool), np.ones(len(second), bool)
    for row, (box, confidence, label) in enumerate(zip(first.boxes, first.scores, first.labels, strict=True)):
        near = extra & (second.labels == label) & (np.abs(second.scores - confidence) <= score)
        rows = np.flatnonzero(near)
        distances = np.abs(second.boxes[rows] - box).max(axis=1)
        if rows.size and distances.min() <= pixels + share * (box[2:] - box[:2]).max():
            missing[row] = extra[rows[np.argmin(distances)]] = False
    return missing, extra
