"""Boxes on numpy arrays: xyxy, in pixels of whatever image the caller means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppmtl.structures import Size


@dataclass(frozen=True)
class Detections:
    """Boxes found in one image, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy in original-image pixels.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 class indices.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                "Detections needs boxes (N, 4), scores (N,) and labels (N,), got "
                f"{self.boxes.shape}, {self.scores.shape} and {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: slice | np.ndarray) -> Detections:
        """Some of the detections: a slice, a mask (N,) bool or indices."""
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows])

    @staticmethod
    def empty() -> Detections:
        """Zero detections."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32), np.zeros((0,), np.int64))


def clip_boxes(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Boxes (N, 4) float32 cut to an image of ``size`` (height, width)."""
    return np.clip(boxes, 0, np.array([*size[::-1], *size[::-1]], np.float32))


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (N,); an inverted box counts as 0."""
    areas: np.ndarray = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    return areas


def iou_one_to_many(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of ``box`` (4,) with ``boxes`` (N, 4); 0 where both areas are 0."""
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = box_areas(box[None])[0] + box_areas(boxes) - intersection
    iou: np.ndarray = intersection / np.maximum(union, np.finfo(np.float32).tiny)
    return iou
