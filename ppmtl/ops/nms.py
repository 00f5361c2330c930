"""Class-wise greedy non-maximum suppression in numpy, the same for every engine."""

from __future__ import annotations

import numpy as np

from ppmtl.ops.boxes import Detections, iou_one_to_many

MAX_CANDIDATES = 30_000  # reference/model.md section 6: what is kept by score before suppression starts


def candidates(boxes: np.ndarray, scores: np.ndarray, score_threshold: float) -> Detections:
    """The best ``MAX_CANDIDATES`` (box, class) pairs that score above the threshold, best first.

    Several classes of one box may survive; equal scores keep the order (box, class).

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N, C) float32 in 0..1.
        score_threshold: kept when score > threshold (strictly).
    """
    rows, labels = best_pairs(scores, score_threshold)
    return Detections(
        boxes[rows].astype(np.float32, copy=False), scores[rows, labels].astype(np.float32), labels.astype(np.int64)
    )


def best_pairs(scores: np.ndarray, score_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(rows, classes) of the pairs that :func:`candidates` takes from ``scores`` (N, C), best first."""
    rows, labels = np.nonzero(scores > score_threshold)
    order = np.argsort(-scores[rows, labels], kind="stable")[:MAX_CANDIDATES]
    return rows[order], labels[order]


def nms(detections: Detections, iou_threshold: float, max_detections: int) -> Detections:
    """The detections that survive suppression within their own class, best first.

    A box is suppressed by a better one of the same class when their IoU is strictly above the threshold.

    Args:
        detections: in any order; equal scores keep their order.
        iou_threshold: in 0..1.
        max_detections: the number kept over all classes.

    Source: reference/model.md section 6 (validation settings of YOLOv5); rows checked against golden nms.json.
    """
    order = np.argsort(-detections.scores, kind="stable")
    boxes, labels = detections.boxes[order], detections.labels[order]
    # One pass for all classes: each is moved by an offset of its own, larger than any image is wide.
    offset = labels[:, None].astype(np.float64) * (float(np.abs(boxes).max(initial=0)) * 2 + 1)
    shifted = boxes.astype(np.float64) + offset
    kept: list[int] = []
    alive = np.arange(len(boxes))
    while alive.size and len(kept) < max_detections:
        best, rest = alive[0], alive[1:]
        kept.append(int(best))
        alive = rest[iou_one_to_many(shifted[best], shifted[rest]) <= iou_threshold]
    return detections[order[np.asarray(kept, np.int64)]]
