"""The kinds of labels: values that know how to move themselves when their image is cropped, scaled or mirrored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ppmtl.ops import affine
from ppmtl.ops.boxes import clip_boxes
from ppmtl.ops.masks import Mask, Rle, draw_mask, mask_hull, move_mask
from ppmtl.structures import IGNORE_LABEL, Label, Size


@dataclass(frozen=True)
class ClassIndex(Label):
    """One class for the entire image; moving the image does not change it.

    Attributes:
        index: the class, of a mixed image the one with the largest share.
        shares: {class: share} of an image mixed of several, their sum is 1; None = it shows one.
    """

    index: int
    shares: Mapping[int, float] | None = None

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> ClassIndex:  # noqa: ARG002
        return self

    def joined(self, other: Label | None, where: np.ndarray | None, min_visible: float) -> ClassIndex | None:  # noqa: ARG002
        """The classes of both images by the share that each covers; half of each where both show through."""
        if not isinstance(other, ClassIndex):
            return None
        covered = 0.5 if where is None else float(where.mean())
        shares: dict[int, float] = {}
        for label, weight in ((self, 1 - covered), (other, covered)):
            for index, share in (label.shares or {label.index: 1.0}).items():
                shares[index] = shares.get(index, 0.0) + weight * share
        return ClassIndex(max(shares, key=shares.__getitem__), shares if len(shares) > 1 else None)

    def class_counts(self, num_classes: int) -> np.ndarray:
        return np.bincount([self.index], minlength=num_classes)


@dataclass(frozen=True)
class LabelMap(Label):
    """A class for every pixel: ``labels`` (H, W) uint8, 255 = not labelled."""

    labels: np.ndarray

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> LabelMap:  # noqa: ARG002
        """The map seen through the window: nearest neighbour, so no class is invented; 255 outside the image."""
        return LabelMap(affine.warp(self.labels, a, size, "nearest", IGNORE_LABEL))

    def joined(self, other: Label | None, where: np.ndarray | None, min_visible: float) -> LabelMap:  # noqa: ARG002
        """The upper image's classes where it covers; where both show through, only a class on which they agree."""
        above = other.labels if isinstance(other, LabelMap) else np.full_like(self.labels, IGNORE_LABEL)
        if where is None:
            return LabelMap(np.where(self.labels == above, self.labels, np.uint8(IGNORE_LABEL)))
        return LabelMap(np.where(where, above, self.labels))

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Pixels of every class; what is not labelled is not counted."""
        return np.bincount(self.labels.reshape(-1), minlength=num_classes)[:num_classes]


@dataclass(frozen=True)
class Boxes(Label):
    """Objects with a box and a class.

    Attributes:
        boxes: (N, 4) float32 xyxy pixels of the image; N may be 0.
        classes: (N,) int64 class indices.
        ignored: (M, 4) float32 crowd regions: never a training target, but evaluation needs them.
        ignored_classes: (M,) int64.
    """

    complete: ClassVar[bool] = True

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
            boxes, shares = _boxes_in_window(boxes, a, size)
            kept = (shares > 0) & (shares >= min_visible)
            arrays += [boxes[kept], classes[kept]]
        return Boxes(*arrays)

    def objects(self) -> np.ndarray:
        return self.boxes

    def class_counts(self, num_classes: int) -> np.ndarray:
        return np.bincount(self.classes, minlength=num_classes)

    def kept(self, mask: np.ndarray) -> Boxes:
        """Only some of the boxes; crowd regions stay."""
        return replace(self, boxes=self.boxes[mask], classes=self.classes[mask])

    def joined(self, other: Label | None, where: np.ndarray | None, min_visible: float) -> Boxes | None:
        """The boxes of both images, without those of this one that the other covers."""
        if not isinstance(other, Boxes):
            return None
        own = self.kept(_uncovered_shares(self.boxes, where) >= min_visible)
        names = ("boxes", "classes", "ignored", "ignored_classes")
        return Boxes(*(np.concatenate([getattr(own, name), getattr(other, name)]) for name in names))


@dataclass(frozen=True)
class Instances(Boxes):
    """Objects with a box, a class and, as far as they are known, the pixels that they cover.

    Attributes:
        masks: one per box: the file's polygons or run lengths, exact as long as the image has not been moved; None = the
            object has a box only.
        ignored_masks: likewise for the crowd regions.
    """

    masks: tuple[Mask | None, ...] = ()
    ignored_masks: tuple[Mask | None, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, boxes, found in (("masks", self.boxes, self.masks), ("ignored", self.ignored, self.ignored_masks)):
            if len(found) != len(boxes):
                raise ValueError(
                    f"{name}: one mask (or None) per box is needed, got {len(found)} for {len(boxes)} boxes"
                )

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> Instances:
        """The objects in the window, cut at its borders; what has a mask and is not seen of it is gone."""
        boxes, classes, found = _moved_objects(self.boxes, self.classes, self.masks, a, size, min_visible)
        ignored = _moved_objects(self.ignored, self.ignored_classes, self.ignored_masks, a, size, min_visible)
        return Instances(boxes, classes, *ignored[:2], found, ignored[2])

    def kept(self, mask: np.ndarray) -> Instances:
        """Only some of the objects; crowd regions stay."""
        found = tuple(self.masks[index] for index in np.flatnonzero(mask))
        return replace(self, boxes=self.boxes[mask], classes=self.classes[mask], masks=found)

    def regions(self, size: Size) -> list[np.ndarray]:
        """The masks; an object without one covers nothing."""
        return [draw_mask(mask, size) if mask is not None else np.zeros(size, np.uint8) for mask in self.masks]

    def joined(self, other: Label | None, where: np.ndarray | None, min_visible: float) -> Instances | None:
        """The objects of both images; the masks and boxes of this one's end where the other image covers them."""
        if not isinstance(other, Instances):
            return None
        own = self if where is None else self._cut_out(where, min_visible)
        names = ("boxes", "classes", "ignored", "ignored_classes")
        arrays = {name: np.concatenate([getattr(own, name), getattr(other, name)]) for name in names}
        return Instances(**arrays, masks=own.masks + other.masks, ignored_masks=own.ignored_masks + other.ignored_masks)

    def _cut_out(self, where: np.ndarray, min_visible: float) -> Instances:
        boxes, found, shares = self.boxes.copy(), list(self.masks), _uncovered_shares(self.boxes, where)
        for index in np.flatnonzero(shares < 1):
            if (mask := self.masks[index]) is None:
                continue
            pixels = draw_mask(mask, (where.shape[0], where.shape[1]))
            left = Rle.of(pixels * ~where)
            shares[index] = left.area() / max(int(pixels.sum()), 1)
            found[index] = left
            boxes[index] = _within(boxes[index], mask_hull(left, left.size))
        return replace(self, boxes=boxes, masks=tuple(found)).kept((shares > 0) & (shares >= min_visible))


@dataclass(frozen=True)
class Captions(Label):
    """Sentences that describe the image, as their authors wrote them.

    Moving the image does not change them, although mirroring or mixing it may make them untrue: the task that they are
    trained with says which transforms it allows.
    """

    texts: tuple[str, ...]

    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> Captions:  # noqa: ARG002
        return self

    def joined(self, other: Label | None, where: np.ndarray | None, min_visible: float) -> Captions:  # noqa: ARG002
        """The sentences of this image; those of the other one are left out."""
        return self

    def drawn(self, rng: np.random.Generator) -> Captions:
        """The sentences in random order: a task that trains with some of them takes the first."""
        return Captions(tuple(self.texts[index] for index in rng.permutation(len(self.texts))))


def visible_shares(boxes: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """The share of the area of each of ``boxes`` (N, 4) xyxy that lies in a window x1, y1, x2, y2, (N,) float64 0..1."""
    x1, y1, x2, y2 = window
    width = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)
    height = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)
    area = (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
    shares: np.ndarray = np.maximum(width, 0) * np.maximum(height, 0) / np.maximum(area, 1e-9)
    return shares


def _boxes_in_window(boxes: np.ndarray, a: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The moved boxes clipped to the window, and the shares of their area that lie in it."""
    boxes = affine.apply_to_boxes(a, boxes)
    return clip_boxes(boxes, size), visible_shares(boxes, (0, 0, size[1], size[0]))


def _moved_objects(
    boxes: np.ndarray,
    classes: np.ndarray,
    masks: Sequence[Mask | None],
    a: np.ndarray,
    size: Size,
    min_visible: float,
) -> tuple[np.ndarray, np.ndarray, tuple[Mask | None, ...]]:
    """Boxes, classes and masks of what is left in the window.

    The box of an object that is cut or turned is drawn around its mask: around the old box it would be too wide.
    """
    boxes, shares = _boxes_in_window(boxes, a, size)
    turned = a[0, 1] != 0 or a[1, 0] != 0
    kept, found = [], []
    for index in np.flatnonzero((shares > 0) & (shares >= min_visible)):
        mask = masks[index]
        if mask is not None:
            mask = move_mask(mask, a, size)
            if turned or shares[index] < 1:
                hull = mask_hull(mask, size)
                if hull is None:
                    continue
                boxes[index] = _within(boxes[index], hull)
        kept.append(index)
        found.append(mask)
    return boxes[kept], classes[kept], tuple(found)


def _within(box: np.ndarray, hull: np.ndarray | None) -> np.ndarray:
    """The part of a box (4,) that lies in the hull of its mask; the box itself where they do not touch."""
    if hull is None:
        return box
    part = np.concatenate([np.maximum(box[:2], hull[:2]), np.minimum(box[2:], hull[2:])])
    return part if (part[2:] > part[:2]).all() else box


def _uncovered_shares(boxes: np.ndarray, where: np.ndarray | None) -> np.ndarray:
    """The share of the area of each of ``boxes`` (N, 4) at whose pixels ``where`` (H, W) is False, (N,) float64."""
    shares = np.ones(len(boxes))
    if where is not None:
        for index, (x1, y1, x2, y2) in enumerate(boxes):
            covered = where[int(y1) : math.ceil(y2), int(x1) : math.ceil(x2)]
            shares[index] -= covered.mean() if covered.size else 0
    return shares
