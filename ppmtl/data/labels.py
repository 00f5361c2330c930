"""The kinds of labels: values that know how to move themselves when their image is cropped, scaled or mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ppmtl.ops import affine
from ppmtl.ops.boxes import clip_boxes
from ppmtl.structures import IGNORE_LABEL, Label, Size


@dataclass(frozen=True)
class ClassIndex(Label):
    """One class for the entire image; moving the image does not change it."""

    index: int

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> ClassIndex:  # noqa: ARG002
        return self


@dataclass(frozen=True)
class LabelMap(Label):
    """A class for every pixel: ``labels`` (H, W) uint8, 255 = not labelled."""

    labels: np.ndarray

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> LabelMap:  # noqa: ARG002
        """The map seen through the window: nearest neighbour, so no class is invented; 255 outside the image."""
        return LabelMap(affine.warp(self.labels, a, size, "nearest", IGNORE_LABEL))


@dataclass(frozen=True)
class Boxes(Label):
    """Objects with a box and a class.

    Attributes:
        boxes: (N, 4) float32 xyxy pixels of the image; N may be 0.
        classes: (N,) int64 class indices.
        ignored: (M, 4) float32 crowd regions: never a training target, but evaluation needs them.
        ignored_classes: (M,) int64.
    """

    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    ignored_classes: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int64))

    def __post_init__(self) -> None:
        for boxes, classes in ((self.boxes, self.classes), (self.ignored, self.ignored_classes)):
            if boxes.shape != (len(classes), 4):
                raise ValueError(f"boxes need shape (N, 4) and N classes, got {boxes.shape} and {classes.shape}")

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> Boxes:
        """The boxes in the window, clipped to it; those that are too little visible are gone."""
        arrays = []
        for boxes, classes in ((self.boxes, self.classes), (self.ignored, self.ignored_classes)):
            boxes = affine.apply_to_boxes(a, boxes)
            shares = visible_shares(boxes, (0, 0, size[1], size[0]))
            kept = (shares > 0) & (shares >= min_visible)
            arrays += [clip_boxes(boxes[kept], size), classes[kept]]
        return Boxes(*arrays)

    def objects(self) -> np.ndarray:
        return self.boxes

    def kept(self, mask: np.ndarray) -> Boxes:
        """Only some of the boxes; crowd regions stay."""
        return replace(self, boxes=self.boxes[mask], classes=self.classes[mask])


def visible_shares(boxes: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """The share of the area of each of ``boxes`` (N, 4) xyxy that lies in a window x1, y1, x2, y2, (N,) float64 0..1."""
    x1, y1, x2, y2 = window
    width = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)
    height = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)
    area = (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
    shares: np.ndarray = np.maximum(width, 0) * np.maximum(height, 0) / np.maximum(area, 1e-9)
    return shares
