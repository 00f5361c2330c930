"""A class for every pixel.

Raw contract: ``probs`` (B, C, h, w) float32, softmaxed over C, at any resolution of the network input (h and w may be
smaller than the input; they cover the same field of view).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import cv2
import numpy as np
from typing_extensions import TypedDict

from ppmtl.data.labels import LabelMap
from ppmtl.ops import affine
from ppmtl.ops.confusion import AbsentClass, class_iou, confusion_matrix, frequency_weighted_iou, mean_iou
from ppmtl.ops.drawing import class_colors, class_legend
from ppmtl.ops.polygons import encode
from ppmtl.ops.tiles import Window, blend_weights, tile_windows
from ppmtl.structures import IGNORE_LABEL, ImageMeta, Label, Sample, Size
from ppmtl.tasks.base import Merge, Meter, Metrics, Raw, Task
from ppmtl.tasks.views import Slicing, View


class ClassShares(TypedDict):
    """Share of the image's pixels for every class that occurs, largest first."""

    classes: dict[str, float]


@dataclass(frozen=True)
class SegMap:
    """A label for every pixel of one image.

    Attributes:
        labels: (H, W) uint8 class indices at original size; 255 = not seen by any view.
        probs: (C, H, W) float32 class probabilities at original size, kept while views are still to be merged; else None.
    """

    labels: np.ndarray
    probs: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2:
            raise ValueError(f"SegMap needs labels (H, W), got shape {self.labels.shape}")


@dataclass(frozen=True, kw_only=True)
class SegTile(SegMap):
    """What one tile shows: ``labels`` and ``probs`` are those of ``window`` in an image of size ``original``."""

    window: Window
    original: Size


@dataclass(eq=False, kw_only=True)
class Segmentation(Task[SegMap]):
    """Which of the classes does each pixel show? mIoU over the whole set, at original size, is the challenge's measure.

    Args:
        absent: how a class that neither truth nor prediction contains enters the mean: "skip" leaves it out, "zero" is
            what the challenge's scorer does (paddleseg 2.7.0), "one" is later PaddleSeg. All three are always reported.
        average: what the views of one image are averaged as. "logits" averages log-probabilities, which has the same
            argmax as averaging logits, because they differ by a constant per pixel.
        tile: show images larger than a tile in overlapping tiles, each at the size at which an image of a tile's size would be
            shown, and blend their probabilities: evaluation, inference and bundles alike; None = every image in one piece.
    """

    task_type: ClassVar[str] = "segmentation"
    label_type: ClassVar[type[Label]] = LabelMap
    json_type: ClassVar[Any] = ClassShares
    tolerances: ClassVar[Mapping[str, float]] = {"probs": 1e-4}
    layer: ClassVar[int] = 0
    section: ClassVar[str | None] = "seg"
    merges_parts: ClassVar[bool] = True

    absent: AbsentClass = "skip"
    average: Literal["probs", "logits"] = "probs"
    tile: Slicing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile is not None and not (self.tile.size or self.input_size or self.long_side):
            raise ValueError(
                f"tasks.{self.name}.tile: images are shown at their own size, so say how large a tile is: size"
            )
        if len(self.classes) > IGNORE_LABEL:
            raise ValueError(
                f"tasks.{self.name}.classes: 8-bit label maps hold at most {IGNORE_LABEL} classes, got {len(self.classes)}"
            )

    def views(self, original: Size, *, augment: bool) -> list[View]:
        """See :class:`Task`; those of every tile, where the image is larger than one."""
        tile, side = self.tile or Slicing(original), self.long_side or 0
        size = tile.size or self.input_size or (side, side)
        windows = tile_windows(original, size, tile.overlap)
        if not windows:
            return super().views(original, augment=augment)
        part = (min(size[0], original[0]), min(size[1], original[1]))
        shown = super().views(part, augment=augment)
        return [replace(view, window=window) for view in shown for window in windows]

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """{"label_map": (B, H, W) int64}, 255 = not labelled; all of it for an image without a label map."""
        labels = [self.label_or_none(sample, LabelMap) for sample in samples]
        maps = [
            np.full(sample.size, IGNORE_LABEL) if label is None else label.labels
            for sample, label in zip(samples, labels, strict=True)
        ]
        return {"label_map": np.stack(maps).astype(np.int64)}

    def example(self, size: Size) -> LabelMap:
        """Blocks of an eighth of the image that run through all classes, and one that is not labelled."""
        height, width = size
        blocks = np.arange(64).reshape(8, 8) % len(self.classes)
        blocks[0, 0] = IGNORE_LABEL
        return LabelMap(
            blocks.astype(np.uint8)[np.arange(height)[:, None] * 8 // height, np.arange(width) * 8 // width]
        )

    def raw_shapes(self, batch: int, size: Size) -> dict[str, tuple[int | None, ...]]:  # noqa: ARG002
        """{"probs": (B, C, h, w)}, any h and w."""
        return {"probs": (batch, len(self.classes), None, None)}

    def perfect_raw(self, label: Label, size: Size) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Probability 1 for the label of every pixel; class 0 where there is none."""
        assert isinstance(label, LabelMap)
        known = np.where(label.labels == IGNORE_LABEL, 0, label.labels)
        return {"probs": np.eye(len(self.classes), dtype=np.float32)[known].transpose(2, 0, 1)[None]}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> SegMap:
        """The label map of one image at original size, or of the part of it that is shown."""
        probs, a = _upright(np.asarray(raw["probs"][index], np.float32), meta)
        x1, y1, x2, y2 = window = _seen(meta)
        size = (y2 - y1, x2 - x1)
        a = affine.compose(a, affine.translation(-x1, -y1))
        if not _covers(a, probs.shape[1:], size):  # letterboxed: only some pixels are seen
            probs = np.stack([affine.warp(np.ascontiguousarray(layer), a, size, "linear", 0) for layer in probs])
        elif single:
            return SegMap(_labels_at(probs, size))
        else:
            probs = _resized(probs, size)
        labels = _argmax(probs)
        if single:
            return SegMap(labels)
        averaged = probs if self.average == "probs" else np.log(probs + np.finfo(np.float32).tiny)
        if size == meta.original_size:
            return SegMap(labels, averaged)
        return SegTile(labels, averaged, window=window, original=meta.original_size)

    def truth(self, label: Label) -> SegMap:
        """The label map itself."""
        assert isinstance(label, LabelMap)
        return SegMap(label.labels)

    def new_merge(self) -> Merge[SegMap]:
        """A merge that keeps one running sum of probabilities, and with tiles one of their weights."""
        return _MeanMap()

    def new_meter(self) -> Meter[SegMap]:
        """A meter of mean IoU and pixel accuracy.

        Metrics:
            miou: mean over classes of intersection over union, 0 to 1, absent classes as ``absent`` says; the primary metric
            fwiou: mean over classes weighted by their share of the labelled pixels, 0 to 1
            pixel_accuracy: share of labelled pixels whose class is right, 0 to 1
            miou_absent_skipped: miou without classes that neither truth nor prediction contains
            miou_absent_zero: miou where those classes count 0
            miou_absent_one: miou where those classes count 1
        """
        return _IoU(self)

    def to_json(self, prediction: SegMap, *, threshold: float = 0.0) -> dict[str, Any]:  # noqa: ARG002
        """{"classes": {name: share of the image}} for classes that occur; the map itself is :meth:`mask`."""
        labels, names = prediction.labels, self.classes.names
        counts = np.bincount(labels.ravel(), minlength=len(names))[: len(names)]
        shares = {names[i]: round(float(counts[i]) / labels.size, 5) for i in np.argsort(-counts) if counts[i]}
        return {"classes": shares}

    def arrays(self, prediction: SegMap, *, threshold: float = 0.0) -> dict[str, Any]:  # noqa: ARG002
        """{"label_map": (H, W) uint8 class indices, 255 = not seen; "names": of the classes}; a threshold does not apply."""
        return {"label_map": prediction.labels, "names": self.classes.names}

    def mask(self, prediction: SegMap) -> np.ndarray:
        """The label map."""
        return prediction.labels

    def from_results(self, stored: Any, size: Size) -> SegMap:
        """The label map."""
        if stored.shape != size:
            raise ValueError(f"the label map is {stored.shape} (height, width), the image {size}")
        if (wrong := stored[(stored >= len(self.classes)) & (stored != IGNORE_LABEL)]).size:
            raise ValueError(f"the label map holds class {wrong[0]}, there are {len(self.classes)} classes")
        return SegMap(stored)

    def draw(self, canvas: np.ndarray, prediction: SegMap, threshold: float) -> np.ndarray:  # noqa: ARG002
        """The image blended half and half with the classes' colours; pixels without a label stay as they are."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.classes)] = class_colors(self.classes)
        blended = cv2.addWeighted(canvas, 0.5, palette[prediction.labels], 0.5, 0)
        return np.where((prediction.labels == IGNORE_LABEL)[..., None], canvas, blended)

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """The classes' colours."""
        return class_legend(self.classes)

    def submission_entry(self, prediction: SegMap, *, max_boxes: int) -> Any:  # noqa: ARG002
        """The polygons of every class: {"0": contours, ...}."""
        return encode(prediction.labels, len(self.classes))


def _upright(probs: np.ndarray, meta: ImageMeta) -> tuple[np.ndarray, np.ndarray]:
    """(C, h, w) with a mirroring undone, and the affine from its cells to the original image."""
    a = meta.to_original
    if a[0, 0] < 0:
        probs = probs[:, :, ::-1]
        a = affine.compose(affine.horizontal_flip(meta.input_size[1]), a)
    return probs, affine.compose(affine.stretch(probs.shape[1:], meta.input_size), a)


def _seen(meta: ImageMeta) -> Window:
    """The whole pixels of the original image that the network input shows."""
    (height, width), (rows, columns) = meta.input_size, meta.original_size
    xs, ys = np.sort(meta.to_original @ [[0, width], [0, height], [1, 1]], axis=1)
    rounding = 1e-6
    x1, y1 = (max(0, math.ceil(v - rounding)) for v in (xs[0], ys[0]))
    return x1, y1, min(columns, math.floor(xs[1] + rounding)), min(rows, math.floor(ys[1] + rounding))


def _covers(a: np.ndarray, cells: tuple[int, ...], size: Size) -> bool:
    """Whether ``a`` brings the rectangle of all cells exactly onto the image, so that resizing is enough."""
    return bool(np.abs(a - affine.stretch((cells[0], cells[1]), size)).max() < 1e-6)


def _argmax(probs: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of (C, H, W); 255 where no class has any probability, because no view shows the pixel."""
    labels = np.argmax(probs, axis=0).astype(np.uint8)
    unseen = probs[0] == 0
    if unseen.any():
        unseen &= (probs == 0).all(axis=0)
        labels[unseen] = IGNORE_LABEL
    return cast(np.ndarray, labels)


def _resized(probs: np.ndarray, size: Size) -> np.ndarray:
    """(C, H, W) at ``size``."""
    height, width = size
    if probs.shape[1:] == size:
        return np.ascontiguousarray(probs)
    # cv2.resize is the half-pixel bilinear of F.interpolate(align_corners=False); channels go last, 128 at a time at most
    channels_last = np.ascontiguousarray(probs.transpose(1, 2, 0))
    resized = cv2.resize(channels_last, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized.reshape(height, width, -1).transpose(2, 0, 1))


def _labels_at(probs: np.ndarray, size: Size) -> np.ndarray:
    """The (H, W) uint8 argmax of :func:`_resized`, made class by class.

    With 19 classes that takes a sixth of the time and, for a 12-megapixel photo, 0.2 GB instead of 1.9 GB. The resized
    numbers differ in the last bit, so exact ties may fall to another class: 3 pixels of a million, on random numbers.
    """
    if probs.shape[1:] == size:
        return cast(np.ndarray, np.argmax(probs, axis=0).astype(np.uint8))
    labels = np.zeros(size, np.uint8)
    best = cv2.resize(np.ascontiguousarray(probs[0]), size[::-1], interpolation=cv2.INTER_LINEAR)
    for index in range(1, len(probs)):
        layer = cv2.resize(np.ascontiguousarray(probs[index]), size[::-1], interpolation=cv2.INTER_LINEAR)
        np.copyto(labels, index, where=layer > best)
        np.maximum(best, layer, out=best)
    return labels


class _MeanMap:
    """The sum of whole maps, or the weighted mean of tiles; an image's views are all of one kind."""

    def __init__(self) -> None:
        self._first: SegMap | None = None
        self._sum: np.ndarray | None = None
        self._weight: np.ndarray | None = None  # (H, W), of the tiles so far

    def add(self, prediction: SegMap) -> None:
        if isinstance(prediction, SegTile):
            self._add_tile(prediction)
            return
        if self._first is None:
            self._first = prediction
            return
        assert prediction.probs is not None
        assert self._first.probs is not None
        if self._sum is None:
            self._sum = self._first.probs.copy()
        self._sum += prediction.probs

    def _add_tile(self, tile: SegTile) -> None:
        assert tile.probs is not None
        if self._sum is None or self._weight is None:
            self._sum = np.zeros((len(tile.probs), *tile.original), np.float32)
            self._weight = np.zeros(tile.original, np.float32)
        x1, y1, x2, y2 = tile.window
        weight = blend_weights((y2 - y1, x2 - x1))
        self._weight[y1:y2, x1:x2] += weight
        for total, probs in zip(self._sum, tile.probs, strict=True):
            total[y1:y2, x1:x2] += probs * weight

    def mean(self) -> np.ndarray:
        """(C, H, W) float32: what tiles say on average; the sum of whole maps, whose argmax is the same."""
        assert self._sum is not None
        if self._weight is not None:
            np.divide(self._sum, self._weight, out=self._sum)
            self._weight = None  # the sum is a mean now
        return self._sum

    def result(self) -> SegMap:
        if self._sum is None:
            assert self._first is not None
            return SegMap(self._first.labels)
        return SegMap(_argmax(self.mean()))


class _IoU:
    def __init__(self, task: Segmentation) -> None:
        self._task = task
        self._matrix = np.zeros((len(task.classes), len(task.classes)), np.int64)

    def add(self, sample: Sample, prediction: SegMap) -> None:
        truth = self._task.label(sample, LabelMap).labels
        if truth.shape != prediction.labels.shape:
            raise ValueError(
                f"{sample.path}: prediction has shape {prediction.labels.shape}, label map has {truth.shape}"
            )
        found = np.where(truth == IGNORE_LABEL, 0, prediction.labels)  # whatever is predicted there does not count
        self._matrix += confusion_matrix(found, truth, len(self._matrix))

    def state(self) -> Any:
        return self._matrix

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:  # noqa: ARG002  (a sum of integers has no order)
        self._matrix = np.sum(states, axis=0)

    def result(self) -> Metrics:
        matrix = self._matrix
        truth = matrix.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = np.diag(matrix) / truth
            accuracy = float(np.diag(matrix).sum() / matrix.sum())
        return Metrics(
            primary="miou",
            values={
                "miou": mean_iou(matrix, self._task.absent),
                "fwiou": frequency_weighted_iou(matrix),
                "pixel_accuracy": accuracy,
                "miou_absent_skipped": mean_iou(matrix, "skip"),
                "miou_absent_zero": mean_iou(matrix, "zero"),
                "miou_absent_one": mean_iou(matrix, "one"),
            },
            per_class={
                "class": list(self._task.classes.names),
                "iou": class_iou(matrix).tolist(),
                "recall": recall.tolist(),
                "pixels": truth.astype(float).tolist(),
            },
            confusion=matrix,
        )
