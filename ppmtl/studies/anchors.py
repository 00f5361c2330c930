"""Anchors for a detector from the sizes of a data set's boxes."""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLD = 4.0  # yolov5's anchor_threshold: a box uses an anchor when both side ratios stay below it


def fit_anchors(sides: np.ndarray, count: int = 9) -> np.ndarray:
    """Anchors by k-means, small to large.

    On the logarithm of the sides, because boxes are assigned by the ratio of sides and not by their difference.

    Args:
        sides: (N, 2) width and height of boxes in pixels, > 0; at least ``count`` different ones.
        count: how many anchors.

    Returns:
        (count, 2) float64 width and height in pixels, sorted by area.

    Raises:
        ValueError: if there are fewer than ``count`` different boxes.
    """
    logs = np.log(sides).astype(np.float32)
    if len(np.unique(logs, axis=0)) < count:
        raise ValueError(f"{count} anchors need as many boxes of different sizes")
    cv2.setRNGSeed(0)  # the same data give the same anchors
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    _, _, centres = cv2.kmeans(logs, count, np.empty((len(logs), 1), np.int32), until, 5, cv2.KMEANS_PP_CENTERS)
    anchors = np.exp(centres.astype(np.float64))
    ordered: np.ndarray = anchors[np.argsort(anchors.prod(axis=1))]
    return ordered


def recall(sides: np.ndarray, anchors: np.ndarray) -> float:
    """The share of boxes (N, 2) that at least one of the anchors (A, 2) is assigned to; NaN without boxes."""
    ratios = sides[:, None] / anchors[None]
    worst = np.maximum(ratios, 1 / ratios).max(axis=2)
    return float((worst.min(axis=1) < THRESHOLD).mean()) if len(sides) else float("nan")
