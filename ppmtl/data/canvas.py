"""A sample on its way through the transforms: geometry is noted down, and pixels move once.

Geometric transforms only compose an affine and a window; the first transform that needs pixels (colour), or the end of
the list, moves picture, label map and boxes together in one warp. It is faster (colour runs on the crop, not on the
whole picture) and it interpolates once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ppmtl.ops import affine
from ppmtl.structures import IGNORE_LABEL, Sample, Size

IMAGE_FILL = 127  # PaddleSeg's 127.5, which its uint8 cast turns into 127
_ROUNDING = 1e-6  # px


class Canvas:
    """The sample as it looks so far.

    Attributes:
        size: (height, width) of the window onto the moved picture; what the next transform works on.
        interpolation: how the picture will be resampled (label maps: always nearest, so no label is ever invented).
        min_visible: boxes of which a smaller share of the area is left in the window are dropped.
    """

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._to_window = affine.identity()
        self.size: Size = sample.size
        self.interpolation: affine.Interpolation = "linear"
        self.min_visible = 0.15  # reference/model.md section 8 recommends 10-20 %

    @property
    def boxes(self) -> np.ndarray:
        """Returns the boxes in window coordinates, (N, 4) float32 xyxy, not clipped; (0, 4) without any."""
        if self._sample.boxes is None:
            return np.zeros((0, 4), np.float32)
        return affine.apply_to_boxes(self._to_window, self._sample.boxes)

    def keep_boxes(self, mask: np.ndarray) -> None:
        """Forgets the boxes whose entry in ``mask`` (N,) bool is False."""
        if self._sample.boxes is not None and self._sample.box_labels is not None:
            boxes, labels = self._sample.boxes[mask], self._sample.box_labels[mask]
            self._sample = replace(self._sample, boxes=boxes, box_labels=labels)

    def move(self, a: np.ndarray, size: Size) -> None:
        """Composes one geometric step: ``a`` (2, 3) from the present window to a new one of ``size``.

        A step that looks out of a window that was cropped before (a crop, then a rotation) must see padding there and
        not the picture's hidden parts, whose boxes may be forgotten; pixels are moved before such a step.
        """
        seen = affine.apply_to_boxes(affine.invert(a), _rectangle(size))
        whole = affine.apply_to_boxes(self._to_window, _rectangle(self._sample.size))
        if not _inside(seen, _rectangle(self.size)) and not _inside(whole, _rectangle(self.size)):
            self._render()
        self._to_window = affine.compose(self._to_window, a)
        self.size = size

    @property
    def image(self) -> np.ndarray:
        """Returns the (H, W, 3) pixels of the window; geometry noted so far is carried out. Do not write into it."""
        self._render()
        return self._sample.image

    @image.setter
    def image(self, image: np.ndarray) -> None:
        self._render()
        assert image.shape[:2] == self.size, "a colour transform keeps the size"
        self._sample = replace(self._sample, image=image)

    def finish(self) -> Sample:
        """Returns the transformed sample; its boxes are clipped to the picture and slivers are gone."""
        self._render()
        return self._sample

    def _render(self) -> None:
        sample, a = self._sample, self._to_window
        if self.size == sample.size and np.array_equal(a, affine.identity()):
            return
        image = affine.warp(sample.image, a, self.size, self.interpolation, IMAGE_FILL)
        label_map = sample.label_map
        if label_map is not None:
            label_map = affine.warp(label_map, a, self.size, "nearest", IGNORE_LABEL)
        boxes, labels = sample.boxes, sample.box_labels
        if boxes is not None and labels is not None:
            boxes, labels = self._clip(affine.apply_to_boxes(a, boxes), labels)
        ignored = self._clip(affine.apply_to_boxes(a, sample.ignored_boxes), sample.ignored_labels)
        self._sample = Sample(
            path=sample.path,
            image=image,
            label_map=label_map,
            boxes=boxes,
            box_labels=labels,
            class_index=sample.class_index,
            image_id=sample.image_id,
            ignored_boxes=ignored[0],
            ignored_labels=ignored[1],
        )
        self._to_window = affine.identity()

    def _clip(self, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the boxes clipped to the window, without those that are too little visible."""
        height, width = self.size
        shares = visible_shares(boxes, (0, 0, width, height))
        kept = (shares > 0) & (shares >= self.min_visible)
        return np.clip(boxes[kept], 0, np.array([width, height, width, height], np.float32)), labels[kept]


Transform = Callable[[Canvas, np.random.Generator], None]


def augment(sample: Sample, transforms: Sequence[Transform], rng: np.random.Generator) -> Sample:
    """Returns the sample after all transforms; every random draw comes from ``rng``, in the order of the list."""
    canvas = Canvas(sample)
    for transform in transforms:
        transform(canvas, rng)
    return canvas.finish()


def visible_shares(boxes: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """Returns the share of each box's area that lies in a window, (N,) float64 in 0..1.

    Args:
        boxes: (N, 4) xyxy.
        window: x1, y1, x2, y2 in the same coordinates.
    """
    x1, y1, x2, y2 = window
    width = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)
    height = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)
    area = (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
    shares: np.ndarray = np.maximum(width, 0) * np.maximum(height, 0) / np.maximum(area, 1e-9)
    return shares


def _rectangle(size: Size) -> np.ndarray:
    return np.array([[0, 0, size[1], size[0]]], np.float32)


def _inside(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Returns whether one (1, 4) rectangle lies in another, up to rounding."""
    slack = _ROUNDING * max(1.0, float(np.abs(outer).max()))
    return bool((inner[0, :2] >= outer[0, :2] - slack).all() and (inner[0, 2:] <= outer[0, 2:] + slack).all())
