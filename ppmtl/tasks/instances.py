"""Objects with a box, a class, a score and the pixels that they cover.

Raw contract: ``boxes`` (B, N, 4) float32 xyxy input pixels, ``scores`` (B, N, C) in 0..1, ``coefficients`` (B, N, K) and
``prototypes`` (B, K, h, w), which cover the network input at any resolution. The mask of row n is the sigmoid of the sum of
the prototypes weighted by its coefficients, inside its box (Bolya et al. 2019, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
from annotated_types import Ge
from typing_extensions import TypedDict

from ppmtl.data import labels
from ppmtl.ops import affine
from ppmtl.ops.average_precision import average_precision_of_rows, box_rows, coco_mask
from ppmtl.ops.boxes import Detections, box_areas, iou_one_to_many
from ppmtl.ops.drawing import class_colors
from ppmtl.ops.masks import Mask, Rle, draw_mask, move_mask, packed, unpacked
from ppmtl.ops.nms import best_pairs, nms
from ppmtl.ops.wbf import ConfidenceType
from ppmtl.structures import ClassList, ImageMeta, Label, Sample, Size
from ppmtl.tasks.base import ListMeter, Merge, Meter, Metrics, Raw
from ppmtl.tasks.detection import Detection, MergeBoxes, fuse, in_original, joined_arrays, uncut
from ppmtl.tasks.views import View

_STRIDE = 4  # input pixels per cell of the mask targets, as in YOLOv7's and YOLACT's prototypes


class RunLengths(TypedDict):
    size: list[int]
    counts: str


FoundInstance = TypedDict(
    "FoundInstance",
    {
        "bbox": list[float],
        "score": float,
        "class": str,
        "class_index": int,
        "category_id": int,
        "segmentation": RunLengths | list[list[float]] | None,
    },
)


class FoundInstances(TypedDict):
    """Objects, best first; ``bbox`` is xyxy in pixels of the original image, ``segmentation`` as in COCO files."""

    instances: list[FoundInstance]


@dataclass(frozen=True)
class InstanceMasks(Detections):
    """Objects found in one image, best first; ``masks`` holds one mask per box, None where it is not known."""

    masks: tuple[Mask | None, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.masks) != len(self.boxes):
            raise ValueError(f"InstanceMasks needs one mask per box, got {len(self.masks)} for {len(self.boxes)} boxes")

    def __getitem__(self, rows: slice | np.ndarray) -> InstanceMasks:
        kept = np.arange(len(self))[rows].tolist()
        return InstanceMasks(self.boxes[rows], self.scores[rows], self.labels[rows], tuple(self.masks[i] for i in kept))


@dataclass(frozen=True)
class _Candidates(Detections):
    """Boxes before and after suppression that know the row of the raw arrays that they came from."""

    rows: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> _Candidates:
        return _Candidates(self.boxes[rows], self.scores[rows], self.labels[rows], self.rows[rows])


@dataclass(eq=False, kw_only=True)
class Instances(Detection):
    """Where are the objects, which are they and which pixels does each cover? COCO's mask AP at IoU 0.50 is the measure.

    Boxes are found, suppressed and merged as in detection. A merged box has the mask of its best view.

    Args:
        max_detections: [objects] kept per view; only their masks are computed. COCO's measure looks at the 100 best of a class.
    """

    task_type: ClassVar[str] = "instances"
    label_type: ClassVar[type[Label]] = labels.Instances
    json_type: ClassVar[Any] = FoundInstances
    tolerances: ClassVar[Mapping[str, float]] = {
        "scores": 1e-4, "boxes": 0.05, "coefficients": 1e-3, "prototypes": 1e-3
    }  # fmt: skip
    section: ClassVar[str | None] = None

    max_detections: Annotated[int, Ge(1)] = 100

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """The targets of detection, and the objects' masks in the order of its rows.

        Returns:
            ``boxes`` (M, 6) float32, as in detection; ``masks`` (M, H/4, W/4) uint8 0 or 1; ``has_mask`` (M,) float32, 0 for
            objects with a box only or without a pixel at this stride; ``supervised`` (B,) float32, 0 for images that
            nothing is known about.
        """
        cells = _cells(samples[0].size) if samples else (1, 1)
        masks = []
        for sample in samples:
            label = self.label_or_none(sample, labels.Instances)
            masks += [_target(mask, sample.size, cells) for mask in label.masks] if label else []
        targets = np.stack(masks or [np.zeros(cells, np.uint8)])
        has_mask = np.any(targets, axis=(1, 2)).astype(np.float32)
        return super().collate(samples) | {"masks": targets, "has_mask": has_mask}

    def example(self, size: Size) -> labels.Instances:
        """The boxes of detection's example, one with a hexagon in it and one with two bars."""
        found = super().example(size)
        shapes = (
            (((0.0, 0.5), (0.25, 0.0), (0.75, 0.0), (1.0, 0.5), (0.75, 1.0), (0.25, 1.0)),),
            (
                ((0.0, 0.0), (0.375, 0.0), (0.375, 1.0), (0.0, 1.0)),
                ((0.625, 0.0), (1.0, 0.0), (1.0, 1.0), (0.625, 1.0)),
            ),
        )
        masks = tuple(
            tuple(box[:2] + np.array(ring) * (box[2:] - box[:2]) for ring in rings)
            for box, rings in zip(found.boxes.astype(np.float64), shapes, strict=True)
        )
        return labels.Instances(found.boxes, found.classes, masks=masks)

    def raw_shapes(self, batch: int, size: Size) -> dict[str, tuple[int | None, ...]]:
        """Those of detection, "coefficients": (B, N, K) and "prototypes": (B, K, h, w), any N, K, h and w."""
        return super().raw_shapes(batch, size) | {
            "coefficients": (batch, None, None),
            "prototypes": (batch, None, None, None),
        }

    def perfect_raw(self, label: Label, size: Size) -> dict[str, np.ndarray]:
        """The label's boxes, each with a prototype of its own that is its mask."""
        assert isinstance(label, labels.Instances)
        cells, count = _cells(size), max(len(label.masks), 1)
        masks = [_target(mask, size, cells) for mask in label.masks] or [np.zeros(cells, np.uint8)]
        return super().perfect_raw(label, size) | {
            "coefficients": np.eye(count, dtype=np.float32)[None, : len(label.masks)],
            "prototypes": np.where(np.stack(masks)[None], np.float32(10), np.float32(-10)),
        }

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> InstanceMasks:  # noqa: ARG002
        """The objects of one image: boxes as in detection, then the masks of those that are left."""
        scores = np.asarray(raw["scores"][index], np.float32)
        rows, classes = best_pairs(scores, self.score_threshold)
        boxes = in_original(np.asarray(raw["boxes"][index], np.float32)[rows], meta)
        found = _Candidates(boxes, scores[rows, classes], classes.astype(np.int64), rows)[box_areas(boxes) > 0]
        limit = self.max_detections
        kept = found[:limit] if self.nms_iou is None else nms(found, self.nms_iou, limit)
        assert isinstance(kept, _Candidates)
        masks = _masks(raw, index, meta, kept)
        return InstanceMasks(kept.boxes, kept.scores, kept.labels, masks)

    def join_tiles(self, full: Detections, tiles: Sequence[tuple[View, Detections]], original: Size) -> Detections:
        """The fusion of the full image's objects and those of its tiles, as in detection."""
        return _fused([full, *uncut(tiles, original)], self.merge_iou, "max")[: self.max_detections]

    def truth(self, label: Label) -> InstanceMasks:
        """The label's objects with score 1."""
        assert isinstance(label, labels.Instances)
        return InstanceMasks(label.boxes, np.ones(len(label.boxes), np.float32), label.classes, label.masks)

    def new_merge(self) -> Merge[Detections]:
        """A merge of boxes as in detection; each keeps the mask of its best view."""
        return _MergeInstances(self)

    def new_meter(self) -> Meter[Detections]:
        """A meter of COCO average precision of boxes and of masks.

        Metrics:
            mask_ap50: average precision at a mask IoU of 0.5, mean over classes, 0 to 1; the primary metric
            mask_ap50_95: the mean over the IoUs 0.5, 0.55 to 0.95
            box_ap50: as mask_ap50, with the IoU of boxes
            box_ap50_95: as mask_ap50_95, with the IoU of boxes
        """
        return _MaskAP(self)

    def to_json(self, prediction: Detections, *, threshold: float = 0.0) -> dict[str, Any]:
        """{"instances": [detection's entries with "segmentation"]}, best first."""
        found = prediction[prediction.scores >= threshold]
        assert isinstance(found, InstanceMasks)
        rows = super().to_json(found)["boxes"]
        return {"instances": [row | {"segmentation": _json(mask)} for row, mask in zip(rows, found.masks, strict=True)]}

    def arrays(self, prediction: Detections, *, threshold: float = 0.0) -> dict[str, Any]:
        """Detection's arrays, and "masks": per box (H, W) bool, None where the mask is not known."""
        found = prediction[prediction.scores >= threshold]
        assert isinstance(found, InstanceMasks)
        masks = [mask.pixels().astype(bool) if isinstance(mask, Rle) else None for mask in found.masks]
        return super().arrays(found) | {"masks": masks}

    def coco_results(self, prediction: Detections, *, threshold: float = 0.0) -> list[dict[str, Any]]:
        """Detection's rows, with the "segmentation" of those whose mask is known: run lengths, as COCO compresses them."""
        found = prediction[prediction.scores >= threshold]
        assert isinstance(found, InstanceMasks)
        masks = ({} if mask is None else {"segmentation": _json(mask)} for mask in found.masks)
        return [row | mask for row, mask in zip(super().coco_results(found), masks, strict=True)]

    def from_results(self, stored: Any, size: Size) -> InstanceMasks:
        """The objects, best first; one without a "segmentation" has a box only."""
        found = super().from_results(stored, size)
        rows = sorted(stored, key=lambda row: -float(row["score"]))
        masks = tuple(_from_json(row.get("segmentation"), size) for row in rows)
        return InstanceMasks(found.boxes, found.scores, found.labels, masks)

    def draw(self, canvas: np.ndarray, prediction: Detections, threshold: float) -> np.ndarray:
        """Every object's pixels half in a colour of its own with a rim, then the boxes, the best on top."""
        found = prediction[prediction.scores >= threshold]
        assert isinstance(found, InstanceMasks)
        colors = class_colors(ClassList(tuple(map(str, range(len(found) + 1)))))
        for mask, color in reversed(list(zip(found.masks, colors[1:], strict=True))):
            if mask is not None:
                covered = draw_mask(mask, (canvas.shape[0], canvas.shape[1])) != 0
                canvas[covered] = (canvas[covered].astype(np.uint16) + color) // 2
                inner = cv2.erode(covered.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
                canvas[covered & (inner == 0)] = color  # a rim: over a label map half a colour says little
        return super().draw(canvas, found, threshold)


def _cells(size: Size) -> Size:
    return math.ceil(size[0] / _STRIDE), math.ceil(size[1] / _STRIDE)


def _target(mask: Mask | None, size: Size, cells: Size) -> np.ndarray:
    """The mask at the targets' stride, (h, w) uint8; zeros where there is none."""
    if mask is None:
        return np.zeros(cells, np.uint8)
    return draw_mask(move_mask(mask, affine.stretch(size, cells), cells), cells)


def _masks(raw: Raw, index: int, meta: ImageMeta, found: _Candidates) -> tuple[Rle, ...]:
    """The masks of boxes in the original image."""
    prototypes = np.asarray(raw["prototypes"][index], np.float32)
    count, height, width = prototypes.shape
    logits = np.asarray(raw["coefficients"][index], np.float32)[found.rows] @ prototypes.reshape(count, -1)
    probs = (0.5 + 0.5 * np.tanh(0.5 * logits)).reshape(-1, height, width)  # the sigmoid, without overflow
    a = affine.compose(affine.stretch((height, width), meta.input_size), meta.to_original)
    return tuple(_in_box(layer, a, box, meta.original_size) for layer, box in zip(probs, found.boxes, strict=True))


def _in_box(probs: np.ndarray, a: np.ndarray, box: np.ndarray, size: Size) -> Rle:
    """Where ``probs`` (h, w), moved by ``a`` into an image of ``size``, are above one half inside the box.

    A pixel is inside by its index, not by its centre: so the authors' ``process_mask_upsample`` does it, and the loss.
    """
    left, top = (math.floor(v) for v in box[:2])
    right, bottom = (math.ceil(v) for v in box[2:])
    into_box = affine.compose(a, affine.translation(-left, -top))
    part = affine.warp(probs, into_box, (bottom - top, right - left), "linear", 0) > 0.5
    part[: math.ceil(box[1]) - top] = False
    part[:, : math.ceil(box[0]) - left] = False
    return Rle.of(part, size, (top, left))


def _fused(views: Sequence[Detections], iou_threshold: float, confidence: ConfidenceType = "avg") -> InstanceMasks:
    """The fusion of boxes; each has the mask of the best of the boxes that it may have been made of."""
    boxes, every = fuse(views, iou_threshold, confidence), _together(views)
    masks: list[Mask | None] = []
    for box, label in zip(boxes.boxes, boxes.labels, strict=True):
        overlaps = iou_one_to_many(box, every.boxes) * (every.labels == label)
        fitting = overlaps >= min(iou_threshold, overlaps.max())
        masks.append(every.masks[int(np.argmax(np.where(fitting, every.scores, -1)))])
    return InstanceMasks(boxes.boxes, boxes.scores, boxes.labels, tuple(masks))


def _together(views: Sequence[Detections]) -> InstanceMasks:
    return InstanceMasks(*joined_arrays(views), sum((v.masks for v in views if isinstance(v, InstanceMasks)), ()))


def _json(mask: Mask | None) -> Any:
    """COCO's form: compressed run lengths, a list of polygons x1, y1, x2, ..., or null."""
    if isinstance(mask, Rle):
        return {"size": list(mask.size), "counts": packed(mask.counts)}
    return None if mask is None else [[round(v, 2) for v in ring.ravel().tolist()] for ring in mask]


def _from_json(segmentation: Any, size: Size) -> Mask | None:
    """The mask of which :func:`_json` makes ``segmentation``; ValueError if it is another image's."""
    if not isinstance(segmentation, dict):
        return (
            None if segmentation is None else tuple(np.array(ring, np.float64).reshape(-1, 2) for ring in segmentation)
        )
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"a segmentation is for [height, width] {segmentation.get('size')}, the image has {list(size)}"
        )
    return Rle(size, unpacked(segmentation["counts"]))


class _MergeInstances(MergeBoxes):
    def fused(self, views: Sequence[Detections]) -> Detections:
        return _fused(views, self._task.merge_iou)[: self._task.max_detections]

    def together(self, views: Sequence[Detections]) -> Detections:
        return _together(views)


class _MaskAP(ListMeter):
    """Keeps rows in the form of COCO files, masks as compressed run lengths, without their image's number."""

    def __init__(self, task: Instances) -> None:
        super().__init__()
        self._task = task

    def add(self, sample: Sample, prediction: Detections) -> None:
        label, size, classes = self._task.label(sample, labels.Instances), sample.size, self._task.classes
        assert isinstance(prediction, InstanceMasks)
        truth = _rows(label.boxes, label.classes, label.masks, size, classes, sample.path)
        crowds = _rows(label.ignored, label.ignored_classes, label.ignored_masks, size, classes, sample.path)
        found = _rows(prediction.boxes, prediction.labels, prediction.masks, size, classes, sample.path)
        self._truth.append(truth + [row | {"iscrowd": 1} for row in crowds])
        scores = prediction.scores.tolist()
        self._found.append([row | {"score": score} for row, score in zip(found, scores, strict=True)])

    def result(self) -> Metrics:
        classes, images = self._task.classes, range(len(self._truth))
        truth, found = (
            [row | {"image_id": image} for image, rows in enumerate(every) for row in rows]
            for every in (self._truth, self._found)
        )
        box = average_precision_of_rows(images, truth, found, classes)
        mask = average_precision_of_rows(
            images, [_with_mask(row) for row in truth], [row for row in found if row["segmentation"]], classes, "segm"
        )
        counted = [row["category_id"] for row in truth if not row.get("iscrowd")]
        return Metrics(
            primary="mask_ap50",
            values={
                "mask_ap50": mask.ap50,
                "mask_ap50_95": mask.ap50_95,
                "box_ap50": box.ap50,
                "box_ap50_95": box.ap50_95,
            },
            per_class={
                "class": list(classes.names),
                "mask_ap50": mask.ap50_per_class.tolist(),
                "mask_ap50_95": mask.ap50_95_per_class.tolist(),
                "box_ap50": box.ap50_per_class.tolist(),
                "box_ap50_95": box.ap50_95_per_class.tolist(),
                "boxes": [float(counted.count(category)) for category in classes.ids],
            },
            curves={
                name: (mask.recall, curve)
                for name, curve in zip(classes.names, mask.precision, strict=True)
                if not np.isnan(curve).any()
            },
        )


def _rows(
    boxes: np.ndarray, found: np.ndarray, masks: Sequence[Mask | None], size: Size, classes: ClassList, where: str
) -> list[dict[str, Any]]:
    segmentations = [None if mask is None else coco_mask(mask, size) for mask in masks]
    rows = box_rows(boxes, found, classes, where)
    return [row | {"segmentation": mask, "size": size} for row, mask in zip(rows, segmentations, strict=True)]


def _with_mask(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row; where no mask is known the box is a region in which no mask is right or wrong."""
    if row["segmentation"]:
        return dict(row)
    x, y, w, h = row["bbox"]
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    return dict(row) | {"segmentation": coco_mask((corners,), row["size"]), "iscrowd": 1}
