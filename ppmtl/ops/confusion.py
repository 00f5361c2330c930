"""Confusion matrices of label maps, and the IoU figures that follow from them."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from ppmtl.structures import IGNORE_LABEL

AbsentClass = Literal["skip", "zero", "one"]

# calcHist counts in float32, which stops being exact at 2^24: no single call sees that many pixels.
_PIXELS_PER_CALL = 2**24 - 1


def confusion_matrix(
    pred: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = IGNORE_LABEL
) -> np.ndarray:
    """Returns how often each labelled class was predicted as each class; matrices of several images may be added.

    Args:
        pred: (H, W) class indices 0..num_classes-1, uint8 or another integer type.
        label: same shape; class indices, or ``ignore_index`` where the pixel does not count.
        num_classes: 1..255.
        ignore_index: 0..255; a prediction under an ignored label is not counted, whatever it is within range.

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
    table = _joint_histogram(_as_uint8(pred, "predictions").reshape(-1), _as_uint8(label, "labels").reshape(-1))
    if table[:, num_classes:].any():
        value = num_classes + int(np.flatnonzero(table[:, num_classes:].any(axis=0))[0])
        raise ValueError(
            f"predictions must be 0..{num_classes - 1}, got {value}: do head and task agree on the classes?"
        )
    if 0 <= ignore_index <= 255:
        table[ignore_index] = 0
    if table[num_classes:].any():
        value = num_classes + int(np.flatnonzero(table[num_classes:].any(axis=1))[0])
        raise ValueError(f"labels must be 0..{num_classes - 1} or {ignore_index} (ignored), got {value}")
    return table[:num_classes, :num_classes]


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Returns the IoU of each class, (C,) float64; NaN for a class that was neither labelled nor predicted."""
    intersection = np.diag(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - intersection
    iou = np.full(len(matrix), np.nan)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def mean_iou(matrix: np.ndarray, absent: AbsentClass = "skip") -> float:
    """Returns the mean IoU over classes; NaN if every class is absent and skipped.

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


def _as_uint8(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{what} must be integers, got {values.dtype}: take the argmax first")
    if values.size and (values.min() < 0 or values.max() > 255):
        raise ValueError(f"{what} must be 0..255, got {values.min()}..{values.max()}")
    return values.astype(np.uint8, order="C")


def _joint_histogram(pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Returns (256, 256) int64 counts of (label, prediction) pairs of two flat uint8 arrays."""
    table = np.zeros((256, 256), np.int64)
    for start in range(0, pred.size, _PIXELS_PER_CALL):
        # One row of pixels: OpenCV walks it without a stop per line.
        part = [flat[start : start + _PIXELS_PER_CALL].reshape(1, -1) for flat in (label, pred)]
        table += cv2.calcHist(part, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return table
