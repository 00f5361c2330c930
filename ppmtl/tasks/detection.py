"""Boxes with a class and a score.

Raw contract: ``boxes`` (B, N, 4) float32 xyxy input pixels, ``scores`` (B, N, C) float32 in 0..1. Suppression is a setting of
the task, not of the head: ``nms_iou: null`` serves a head that needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from annotated_types import Ge, Interval
from typing_extensions import TypedDict

from ppmtl.data.labels import Boxes
from ppmtl.ops.affine import apply_to_boxes
from ppmtl.ops.average_precision import BoxTruth, coco_average_precision
from ppmtl.ops.box_matching import box_confusion
from ppmtl.ops.boxes import Detections, box_areas, clip_boxes
from ppmtl.ops.drawing import class_colors, class_legend, write_text
from ppmtl.ops.nms import candidates, nms
from ppmtl.ops.tiles import cut_by, tile_windows
from ppmtl.ops.wbf import ConfidenceType, weighted_boxes_fusion
from ppmtl.structures import ImageMeta, Label, Sample, Size
from ppmtl.tasks.base import ListMeter, Merge, Meter, Metrics, Raw, Task
from ppmtl.tasks.views import Slicing, View

# Of the network input: a box that ends this close to a tile's inner border counts as cut. Measured on demo signs, 1 to 16 px
# give the same recall, and fewer wrong boxes than keeping them.
_BORDER_PX = 2.0
# Of the confusion matrix, which unlike average precision has to draw a line: boxes of lower scores are not shown to people,
# and at this IoU the challenge calls a box right.
_CONFUSION_SCORE, _CONFUSION_IOU = 0.3, 0.5

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]
FoundBox = TypedDict(
    "FoundBox", {"bbox": list[float], "score": float, "class": str, "class_index": int, "category_id": int}
)


class FoundBoxes(TypedDict):
    """Boxes, best first; ``bbox`` is xyxy in pixels of the original image, ``category_id`` the user's own number."""

    boxes: list[FoundBox]


@dataclass(eq=False, kw_only=True)
class Detection(Task[Detections]):
    """Where are the signs and which are they? COCO's AP at IoU 0.50 is the challenge's measure.

    Args:
        score_threshold: (box, class) pairs at or below this [score] are dropped before suppression.
        nms_iou: suppress within a class above this [IoU]; None = no suppression.
        max_detections: [boxes] kept per view. COCO's measure looks at the 100 best of an image only.
        merge: how the boxes of several views become one set.
        merge_iou: boxes of one class closer than this [IoU] are one object in the merge (ensemble-boxes' default .55).
    """

    task_type: ClassVar[str] = "detection"
    label_type: ClassVar[type[Label]] = Boxes
    json_type: ClassVar[Any] = FoundBoxes
    tolerances: ClassVar[Mapping[str, float]] = {"scores": 1e-4, "boxes": 0.05}  # boxes: pixels of the network input
    section: ClassVar[str | None] = "det"

    score_threshold: Fraction = 0.001
    nms_iou: Fraction | None = 0.65
    max_detections: Annotated[int, Ge(1)] = 300
    merge: Literal["wbf", "nms"] = "wbf"
    merge_iou: Fraction = 0.55

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """{"boxes": (M, 6) float32}, rows [image, class, cx, cy, w, h] normalised to the input size, and {"supervised":
        (B,) float32}: 1 for an image with a label, which may hold no box, 0 for one of which nothing is known. Where images
        were padded to one size, also "valid" (B, 2) int64, the (height, width) of each without its padding.

        A batch without any box carries one row with image -1: Paddle's DataLoader cannot move zero-size arrays
        (reference/paddle.md, trap T3).
        """
        rows = [np.full((1, 6), -1, np.float32)]
        supervised = np.zeros(len(samples), np.float32)
        for index, sample in enumerate(samples):
            label = self.label_or_none(sample, Boxes)
            if label is None:
                continue
            supervised[index] = 1
            height, width = sample.size
            boxes = label.boxes / np.asarray([width, height, width, height], np.float32)
            row = np.empty((len(boxes), 6), np.float32)
            row[:, 0], row[:, 1] = index, label.classes
            row[:, 2:4], row[:, 4:6] = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            rows.append(row)
        boxes = np.concatenate(rows[1:] if any(map(len, rows[1:])) else rows[:1])
        targets: dict[str, np.ndarray] = {"boxes": boxes, "supervised": supervised}
        if any(sample.valid for sample in samples):
            targets["valid"] = np.array([sample.valid or sample.size for sample in samples], np.int64)
        return targets

    def example(self, size: Size) -> Boxes:
        """Two boxes that do not touch, of the first and the last class."""
        height, width = size
        corners = np.array([[0.125, 0.25, 0.375, 0.75], [0.5, 0.125, 0.875, 0.5]], np.float32)
        boxes = (corners * np.array([width, height, width, height], np.float32)).round().astype(np.float32)
        return Boxes(boxes, np.array([0, len(self.classes) - 1], np.int64))

    def example_targets(self, batch: int, size: Size) -> dict[str, np.ndarray]:
        """Rows of the example label; for an empty batch the row that stands for no box."""
        return super().example_targets(batch, size) if batch else self.collate([])

    def raw_shapes(self, batch: int, size: Size) -> dict[str, tuple[int | None, ...]]:  # noqa: ARG002
        """{"boxes": (B, N, 4), "scores": (B, N, C)}, any N."""
        return {"boxes": (batch, None, 4), "scores": (batch, None, len(self.classes))}

    def perfect_raw(self, label: Label, size: Size) -> dict[str, np.ndarray]:  # noqa: ARG002
        """The label's boxes, each with score 1 for its class."""
        assert isinstance(label, Boxes)
        scores = np.eye(len(self.classes), dtype=np.float32)[label.classes]
        return {"boxes": label.boxes[None], "scores": scores[None]}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> Detections:  # noqa: ARG002
        """The detections of one image: above the threshold, un-scaled, clipped, suppressed."""
        found = candidates(
            np.asarray(raw["boxes"][index], np.float32), np.asarray(raw["scores"][index]), self.score_threshold
        )
        boxes = in_original(found.boxes, meta)
        found = Detections(boxes, found.scores, found.labels)[box_areas(boxes) > 0]
        return found[: self.max_detections] if self.nms_iou is None else nms(found, self.nms_iou, self.max_detections)

    def tiles(self, original: Size, slicing: Slicing) -> list[View]:
        """The tiles of an image larger than one of them, each shown at the task's own size.

        Raises:
            ValueError: if neither the task nor ``slicing`` says how large a tile is.
        """
        size = slicing.size or self.input_size or (self.long_side and (self.long_side, self.long_side))
        if not size:
            raise ValueError(f"tasks.{self.name} shows images at their own size: give the tiles' size (--slice_size)")
        windows = tile_windows(original, size, slicing.overlap)
        return [
            View(self.plain_size((y2 - y1, x2 - x1)), False, self.interpolation, (x1, y1, x2, y2), self.letterbox)
            for x1, y1, x2, y2 in windows
        ]

    def join_tiles(self, full: Detections, tiles: Sequence[tuple[View, Detections]], original: Size) -> Detections:
        """The fusion of the full image's boxes and those of its tiles.

        Boxes that a tile's inner border cuts are dropped first. A fused box keeps the best score among its members: a
        small sign is seen by one tile only, and averaging over all views, as for augmentation, would bury it (measured:
        114 of 157 demo signs above score .3 in images of 2048x2048; with the average none; without tiles none).
        """
        return fuse([full, *uncut(tiles, original)], self.merge_iou, "max")[: self.max_detections]

    def truth(self, label: Label) -> Detections:
        """The label's boxes with score 1."""
        assert isinstance(label, Boxes)
        return Detections(label.boxes, np.ones(len(label.boxes), np.float32), label.classes)

    def new_merge(self) -> Merge[Detections]:
        """A merge by weighted boxes fusion, or by one suppression over all views."""
        return MergeBoxes(self)

    def new_meter(self) -> Meter[Detections]:
        """A meter of COCO average precision.

        Metrics:
            ap50: average precision at IoU 0.5, mean over classes, 0 to 1; the primary metric
            ap50_95: the mean over the IoUs 0.5, 0.55 to 0.95 as well
            ap_small: ap50_95 of boxes below 32 x 32 px
            ap_medium: ap50_95 of boxes from 32 x 32 to 96 x 96 px
            ap_large: ap50_95 of boxes above 96 x 96 px
        """
        return _AveragePrecision(self)

    def to_json(self, prediction: Detections, *, threshold: float = 0.0) -> dict[str, Any]:
        """{"boxes": [{"bbox" xyxy original pixels, "score", "class", "class_index", "category_id"}]}, best first."""
        found = prediction[prediction.scores >= threshold]
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        return {
            "boxes": [
                {
                    "bbox": [round(v, 2) for v in box],
                    "score": round(score, 5),
                    "class": self.classes.names[label],
                    "class_index": label,
                    "category_id": self.classes.ids[label],
                }
                for box, score, label in rows
            ]
        }

    def draw(self, canvas: np.ndarray, prediction: Detections, threshold: float) -> np.ndarray:
        """A rectangle with class and score for every box, the best on top."""
        colors = class_colors(self.classes)
        found = prediction[prediction.scores >= threshold][::-1]
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            x1, y1, x2, y2 = (round(float(v)) for v in box)
            color = tuple(int(v) for v in colors[label])
            cv2.rectangle(canvas, (x1, y1), (x2, y2), color, max(1, round(max(canvas.shape) / 500)), cv2.LINE_AA)
            write_text(canvas, self.classes.names[label], (x1, y1), color, end=f" {score:.2f}", above=True)
        return canvas

    def image_score(self, sample: Sample, prediction: Detections, threshold: float) -> float:
        """F1 of the boxes that score ``threshold`` and more, matched at IoU 0.5; NaN where there is no box at all."""
        shown = prediction[prediction.scores >= threshold]
        matrix = box_confusion(shown, _box_truth(self.label(sample, Boxes)), len(self.classes), _CONFUSION_IOU)
        boxes = int(matrix[:-1].sum() + matrix[:, :-1].sum())  # labelled and found
        return 2 * float(np.trace(matrix)) / boxes if boxes else float("nan")

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """The classes' colours."""
        return class_legend(self.classes)

    def arrays(self, prediction: Detections, *, threshold: float = 0.0) -> dict[str, Any]:
        """Per box, best first: "boxes" (N, 4) float32 xyxy pixels, "scores" (N,), "labels" (N,) int64, "names" (N,) text."""
        found = prediction[prediction.scores >= threshold]
        names = np.array([self.classes.names[label] for label in found.labels], np.str_)
        return {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "names": names}

    def coco_results(self, prediction: Detections, *, threshold: float = 0.0) -> list[dict[str, Any]]:
        """Rows {"category_id", "bbox": [x, y, width, height], "score"}, best first."""
        if not (np.isfinite(prediction.boxes).all() and np.isfinite(prediction.scores).all()):
            raise ValueError("boxes and scores must be finite")
        found = prediction[prediction.scores >= threshold]
        xywh = np.array(found.boxes, np.float32)
        xywh[:, 2:] -= xywh[:, :2]
        rows = zip(xywh, found.scores.astype(np.float32), found.labels.tolist(), strict=True)
        return [
            {"category_id": self.classes.ids[label], "bbox": [_shortest(v) for v in box], "score": _shortest(score)}
            for box, score, label in rows
        ]

    def from_results(self, stored: Any, size: Size) -> Detections:  # noqa: ARG002
        """The boxes, best first; of equal scores in the file's order."""
        rows = sorted(stored, key=lambda row: -float(row["score"]))
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        scores, index_of = np.array([row["score"] for row in rows], np.float32), self.classes.index_of()
        unknown = {row["category_id"] for row in rows} - set(index_of)
        if unknown or not np.isfinite(boxes).all() or not np.isfinite(scores).all() or (boxes[:, 2:] < 0).any():
            raise ValueError(
                f"category_id {min(unknown)} is no class; allowed are {list(index_of)}"
                if unknown
                else "bbox is [x, y, width, height] in pixels and score a number, all finite"
            )
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([index_of[row["category_id"]] for row in rows], np.int64)
        return Detections(boxes.astype(np.float32), scores, labels)

    def submission_entry(self, prediction: Detections, *, max_boxes: int) -> Any:
        """Rows of :meth:`coco_results` of the best boxes; COCO counts 100 per class."""
        return self.coco_results(prediction[:max_boxes])


class MergeBoxes(Merge[Detections]):
    """One set of boxes of those of several views; ``instances`` says what becomes of their masks."""

    def __init__(self, task: Detection) -> None:
        self._task = task
        self._views: list[Detections] = []

    def add(self, prediction: Detections) -> None:
        """See :class:`Merge`."""
        self._views.append(prediction)

    def result(self) -> Detections:
        """See :class:`Merge`."""
        if len(self._views) == 1:
            return self._views[0]
        if self._task.merge == "wbf":
            return self.fused(self._views)
        threshold = 1.0 if self._task.nms_iou is None else self._task.nms_iou
        return nms(self.together(self._views), threshold, self._task.max_detections)

    def fused(self, views: Sequence[Detections]) -> Detections:
        """The weighted boxes fusion of the views."""
        return fuse(views, self._task.merge_iou)

    def together(self, views: Sequence[Detections]) -> Detections:
        """The boxes of all views, one after the other."""
        return Detections(*joined_arrays(views))


def joined_arrays(views: Sequence[Detections]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and labels of all views, one after the other."""
    boxes, scores, classes = (
        np.concatenate([getattr(view, name) for view in views]) for name in ("boxes", "scores", "labels")
    )
    return boxes, scores, classes


def in_original(boxes: np.ndarray, meta: ImageMeta) -> np.ndarray:
    """Boxes (N, 4) of the network input in pixels of the original image, clipped to it."""
    return clip_boxes(apply_to_boxes(meta.to_original, boxes), meta.original_size)


def fuse(views: Sequence[Detections], iou_threshold: float, confidence: ConfidenceType = "avg") -> Detections:
    """The weighted boxes fusion of several detections of one image, best first.

    Fusion wants coordinates in 0..1; they are divided by the largest coordinate seen, which changes no IoU.
    """
    extent = max((float(view.boxes.max(initial=0)) for view in views), default=0.0) or 1.0
    boxes, scores, labels = weighted_boxes_fusion(
        [view.boxes / extent for view in views],
        [view.scores for view in views],
        [view.labels for view in views],
        iou_threshold=iou_threshold,
        confidence_type=confidence,
    )
    return Detections((boxes * extent).astype(np.float32), scores.astype(np.float32), labels.astype(np.int64))


def uncut(tiles: Sequence[tuple[View, Detections]], original: Size) -> list[Detections]:
    """What was found in each tile of an image of size ``original``, without boxes that an inner border cuts."""
    kept = []
    for view, found in tiles:
        assert view.window is not None
        margin = _BORDER_PX * (view.window[2] - view.window[0]) / view.size[1]
        kept.append(found[~cut_by(view.window, original, found.boxes, margin)])
    return kept


class _AveragePrecision(ListMeter):
    def __init__(self, task: Detection) -> None:
        super().__init__()
        self._task = task

    def add(self, sample: Sample, prediction: Detections) -> None:
        self._truth.append(_box_truth(self._task.label(sample, Boxes)))
        self._found.append(prediction)

    def result(self) -> Metrics:
        classes = self._task.classes
        ap = coco_average_precision(self._truth, self._found, classes)
        labels = [truth.labels for truth in self._truth]
        counts = np.bincount(np.concatenate(labels) if labels else [], minlength=len(classes))
        confusion = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
        for truth, found in zip(self._truth, self._found, strict=True):
            confusion += box_confusion(found[found.scores >= _CONFUSION_SCORE], truth, len(classes), _CONFUSION_IOU)
        return Metrics(
            primary="ap50",
            values={
                "ap50": ap.ap50,
                "ap50_95": ap.ap50_95,
                "ap_small": ap.ap_small,
                "ap_medium": ap.ap_medium,
                "ap_large": ap.ap_large,
            },
            per_class={
                "class": list(classes.names),
                "ap50": ap.ap50_per_class.tolist(),
                "ap50_95": ap.ap50_95_per_class.tolist(),
                "boxes": counts.astype(float).tolist(),
            },
            confusion=confusion,
            confusion_note=f"boxes of score {_CONFUSION_SCORE} and more, matched at IoU {_CONFUSION_IOU}",
            curves={
                name: (ap.recall, curve)
                for name, curve in zip(classes.names, ap.precision, strict=True)
                if not np.isnan(curve).any()
            },
        )


def _box_truth(label: Boxes) -> BoxTruth:
    return BoxTruth(label.boxes, label.classes, label.ignored, label.ignored_classes)


def _shortest(value: np.float32) -> float:
    """The shortest decimal that is this float32: 0.1, not 0.10000000149011612."""
    return float(str(value))
