"""Confusion matrices of label maps, and the IoU figures that follow from them."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from ppmtl.structures import IGNORE_LABEL

AbsentClass = Literal["skip", "zero", "one"]

# calcHist counts in float32, which stops being exact at 2^24: no single call sees that many pixels.
_PIXELS_PER_CALL = 2**24 - 1


def confusion_matrix(pred: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each labelled class was predicted as each class; matrices of several images may be added.

    Args:
        pred: (H, W) class indices 0..num_classes-1, of any integer type.
        label: same shape; class indices, or 255 where the pixel does not count, whatever is predicted there.
        num_classes: 1..255.

    Returns:
        (num_classes, num_classes) int64; row = label, column = prediction.

    Raises:
        ValueError: shapes differ, or a prediction or label lies out of range (the message names the value).

    Source: cv2.calcHist over two uint8 channels: 3.5x a masked bincount, equal counts.
    """
    if not 1 <= num_classes <= 255:
        raise ValueError(f"confusion_matrix counts 1..255 classes in 8-bit maps, got num_classes={num_classes}")
    if pred.shape != label.shape:
        raise ValueError(f"prediction and label must have the same shape, got {pred.shape} and {label.shape}")
    pixels = [_as_uint8(label, "labels").reshape(1, -1), _as_uint8(pred, "predictions").reshape(1, -1)]
    table = np.zeros((256, 256), np.int64)
    for start in range(0, pred.size, _PIXELS_PER_CALL):
        part = [row[:, start : start + _PIXELS_PER_CALL] for row in pixels]
        table += cv2.calcHist(part, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    if (found := table[:, num_classes:].any(axis=0)).any():
        value = num_classes + int(found.argmax())
        raise ValueError(
            f"predictions must be 0..{num_classes - 1}, got {value}: do head and task agree on the classes?"
        )
    table[IGNORE_LABEL] = 0
    if (found := table[num_classes:].any(axis=1)).any():
        value = num_classes + int(found.argmax())
        raise ValueError(f"labels must be 0..{num_classes - 1} or {IGNORE_LABEL} (ignored), got {value}")
    return table[:num_classes, :num_classes]


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """The IoU of each class, (C,) float64; NaN for a class that was neither labelled nor predicted."""
    intersection = np.diag(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - intersection
    iou = np.full(len(matrix), np.nan)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def mean_iou(matrix: np.ndarray, absent: AbsentClass = "skip") -> float:
    """The mean IoU over classes; NaN if every class is absent and skipped.

    Args:
        matrix: (C, C) counts of the entire data set.
        absent: what a class with an empty union counts. The official scorer's PaddleSeg 2.7.0 counts it 0, PaddleSeg
            since October 2023 counts it 1; leaving it out is what the literature means.
    """
    values = class_iou(matrix)
    if absent != "skip":
        return float(np.mean(np.where(np.isnan(values), float(absent == "one"), values)))
    present = values[~np.isnan(values)]
    return float(np.mean(present)) if len(present) else float("nan")


def frequency_weighted_iou(matrix: np.ndarray) -> float:
    """The mean IoU weighted by how many pixels each class has; NaN without a labelled pixel.

    Source: Long et al. 2015, sec. 5 ("frequency weighted IU").
    """
    pixels = matrix.sum(axis=1)
    if not pixels.any():
        return float("nan")
    present = pixels > 0
    return float(pixels[present] @ class_iou(matrix)[present] / pixels.sum())


def _as_uint8(values: np.ndarray, what: str) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{what} must be integers, got {values.dtype}: take the argmax first")
    if values.dtype != np.uint8 and values.size and (values.min() < 0 or values.max() > 255):
        raise ValueError(f"{what} must be 0..255, got {values.min()}..{values.max()}")
    return np.ascontiguousarray(values, np.uint8)
