"""Task-aligned assignment: which cells answer for which object, and how good each of them has to be. Numpy.

On CPU this is an order of magnitude faster than the dense form: only pairs of a cell and a box that it lies in are looked at.

Source: Feng et al., "TOOD", ICCV 2021; constants and rules in reference/yolor_mtl.md section 2.1; equal to golden
yolor/tal_assigner.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ALPHA, BETA = 0.5, 6.0  # of the metric score^ALPHA * overlap^BETA
_EPSILON = 1e-9
_CIOU_EPSILON = 1e-7


@dataclass(frozen=True)
class Assignment:
    """The cells of one image that must predict an object, in the order of the cells; a cell occurs once.

    Attributes:
        cell: (P,) int64.
        box: (P,) int64, the object's index.
        score: (P,) float32, what the cell's score for the object's class should be.
    """

    cell: np.ndarray
    box: np.ndarray
    score: np.ndarray


def assign(
    points: np.ndarray, boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, labels: np.ndarray, *, top_k: int
) -> Assignment:
    """The best ``top_k`` cells of every object among those whose centre lies in its box.

    A cell that several objects want goes to the one that it overlaps most with, be it one of these or not. Cells that do
    not overlap at all with what they predict are never chosen, so equal metrics (all 0 there) decide nothing.

    Args:
        points: (A, 2) float32 centres of the cells, pixels.
        boxes: (A, 4) float32 xyxy pixels, predicted.
        scores: (C, A) float32 in 0..1, predicted.
        truth: (M, 4) float32 xyxy pixels; M may be 0.
        labels: (M,) int64 classes.
        top_k: cells per object before conflicts are settled.
    """
    x, y = points[:, 0], points[:, 1]
    low, high = truth[:, :2, None], truth[:, 2:, None]
    reach = np.minimum(np.minimum(x - low[:, 0], y - low[:, 1]), np.minimum(high[:, 0] - x, high[:, 1] - y))
    box, cell = np.nonzero(reach > _EPSILON)
    overlap, metric = _quality(box, cell, boxes, scores, truth, labels)

    order = np.lexsort((-metric, box))  # by object, best first
    first = np.searchsorted(box[order], np.arange(len(truth)))
    rank = np.arange(len(order)) - first[box[order]]
    kept = order[(rank < top_k) & (metric[order] > 0)]
    box, cell = box[kept], cell[kept]

    wanted, where = np.unique(cell, return_index=True)
    times = np.bincount(cell, minlength=len(points))[wanted]
    box, contested = box[where], times > 1
    if contested.any():
        cells = wanted[contested]
        every = np.repeat(np.arange(len(truth)), len(cells))
        overlaps, _ = _quality(every, np.tile(cells, len(truth)), boxes, scores, truth, labels)
        box[contested] = overlaps.reshape(len(truth), len(cells)).argmax(axis=0)

    overlap, metric = _quality(box, wanted, boxes, scores, truth, labels)
    best_overlap, best_metric = np.zeros(len(truth), np.float32), np.zeros(len(truth), np.float32)
    np.maximum.at(best_overlap, box, overlap)
    np.maximum.at(best_metric, box, metric)
    score = metric * best_overlap[box] / (best_metric[box] + np.float32(_EPSILON))
    return Assignment(wanted, box, score.astype(np.float32))


def _quality(
    box: np.ndarray, cell: np.ndarray, boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The overlap and the metric of pairs of an object and a cell, (n,) float32 each."""
    overlap = np.maximum(complete_iou(truth[box], boxes[cell]), np.float32(0))
    return overlap, scores[labels[box], cell] ** np.float32(ALPHA) * overlap ** np.float32(BETA)


def complete_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) float32 complete IoU of row-wise pairs of (n, 4) xyxy boxes; as ``_yolov5_loss.complete_iou``."""
    size, other = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    common = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    hull = np.maximum(first[:, 2:], second[:, 2:]) - np.minimum(first[:, :2], second[:, :2])
    intersection = np.maximum(common, 0).prod(axis=1)
    iou = intersection / (size.prod(axis=1) + other.prod(axis=1) - intersection + _CIOU_EPSILON)
    apart = (first[:, :2] + first[:, 2:] - second[:, :2] - second[:, 2:]) / 2
    distance = (apart**2).sum(axis=1) / ((hull**2).sum(axis=1) + _CIOU_EPSILON)
    angles = [np.arctan(wh[:, 0] / np.maximum(wh[:, 1], np.float32(_CIOU_EPSILON))) for wh in (size, other)]
    shape = np.float32(4 / math.pi**2) * (angles[0] - angles[1]) ** 2
    found: np.ndarray = iou - distance - shape * shape / (shape - iou + (1 + _CIOU_EPSILON))
    return found.astype(np.float32, copy=False)
