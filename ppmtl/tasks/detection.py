"""Boxes with a class and a score.

Raw contract: ``boxes`` (B, N, 4) float32 xyxy input pixels, ``scores`` (B, N, C) float32 in 0..1. Suppression is a setting of
the task, not of the head: ``nms_iou: null`` serves a head that needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Interval

from ppmtl.ops.affine import Interpolation, apply_to_boxes
from ppmtl.ops.average_precision import coco_average_precision
from ppmtl.ops.boxes import box_areas, clip_boxes
from ppmtl.ops.nms import candidates, nms
from ppmtl.ops.tiles import cut_by, tile_windows
from ppmtl.ops.wbf import ConfidenceType, weighted_boxes_fusion
from ppmtl.structures import ClassList, Detections, ImageMeta, Prediction, Sample, Size
from ppmtl.tasks.base import Merge, Meter, Metrics, Raw, Slicing, Task, TestTimeAugmentation, View

# Of the network input: a box that ends this close to a tile's inner border counts as cut. Measured on demo signs, 1 to 16 px
# give the same recall, and fewer wrong boxes than keeping them.
_BORDER_PX = 2.0

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


class Detection(Task):
    """Where are the signs and which are they? COCO's AP at IoU 0.50 is the challenge's measure.

    Args:
        score_threshold: (box, class) pairs at or below it are dropped before suppression.
        nms_iou: suppress within a class above this IoU; None = no suppression.
        max_detections: kept per view. COCO's measure looks at the 100 best of a picture only.
        merge: how the boxes of several views become one set.
        merge_iou: boxes of one class closer than this are one object in the merge (ensemble-boxes' default .55).
    """

    task_type = "detection"

    def __init__(
        self,
        name: str,
        classes: ClassList,
        *,
        input_size: tuple[int, int] | None = None,
        long_side: int | None = None,
        interpolation: Interpolation = "linear",
        tta: TestTimeAugmentation | None = None,
        score_threshold: Fraction = 0.001,
        nms_iou: Fraction | None = 0.65,
        max_detections: Annotated[int, Ge(1)] = 300,
        merge: Literal["wbf", "nms"] = "wbf",
        merge_iou: Fraction = 0.55,
    ) -> None:
        super().__init__(
            name, classes, input_size=input_size, long_side=long_side, interpolation=interpolation, tta=tta
        )
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self.merge, self.merge_iou = merge, merge_iou

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Returns {"boxes": (M, 6) float32}, rows [picture, class, cx, cy, w, h] normalised to the input size.

        A batch without any box carries one row with picture -1: Paddle's DataLoader cannot move zero-size arrays
        (reference/paddle.md, trap T3).
        """
        rows = [np.full((1, 6), -1, np.float32)]
        for index, sample in enumerate(samples):
            if sample.boxes is None or sample.box_labels is None:
                raise ValueError(
                    f"{sample.path}: task '{self.name}' needs boxes (possibly none), this picture has no list"
                )
            height, width = sample.size
            boxes = sample.boxes / np.asarray([width, height, width, height], np.float32)
            row = np.empty((len(boxes), 6), np.float32)
            row[:, 0], row[:, 1] = index, sample.box_labels
            row[:, 2:4], row[:, 4:6] = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            rows.append(row)
        return {"boxes": np.concatenate(rows[1:] if any(map(len, rows[1:])) else rows[:1])}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> Prediction:  # noqa: ARG002
        """Returns the detections of one picture: above the threshold, un-scaled, clipped, suppressed."""
        found = candidates(
            np.asarray(raw["boxes"][index], np.float32), np.asarray(raw["scores"][index]), self.score_threshold
        )
        boxes = clip_boxes(apply_to_boxes(meta.to_original, found.boxes), meta.original_size)
        inside = box_areas(boxes) > 0
        found = Detections(boxes[inside], found.scores[inside], found.labels[inside])
        if self.nms_iou is not None:
            return nms(found, self.nms_iou, self.max_detections)
        top = slice(0, self.max_detections)
        return Detections(found.boxes[top], found.scores[top], found.labels[top])

    def tiles(self, original: Size, slicing: Slicing) -> list[View]:
        """Returns the tiles of a picture larger than one of them, each shown at the task's own size.

        Raises:
            ValueError: if neither the task nor ``slicing`` says how large a tile is.
        """
        size = slicing.size or self.input_size or (self.long_side and (self.long_side, self.long_side))
        if not size:
            raise ValueError(f"tasks.{self.name} shows pictures at their own size: give the tiles' size (--slice_size)")
        windows = tile_windows(original, size, slicing.overlap)
        return [
            View(self.plain_size((y2 - y1, x2 - x1)), False, self.interpolation, (x1, y1, x2, y2))
            for x1, y1, x2, y2 in windows
        ]

    def join_tiles(self, whole: Prediction, tiles: Sequence[tuple[View, Prediction]], original: Size) -> Prediction:
        """Returns the fusion of the whole picture's boxes and those of its tiles.

        Boxes that a tile's inner border cuts are dropped first. A fused box keeps the best score among its members: a
        small sign is seen by one tile only, and averaging over all views, as for augmentation, would bury it (measured:
        114 of 157 demo signs above score .3 in pictures of 2048x2048; with the average none; without tiles none).
        """
        assert isinstance(whole, Detections)
        views = [whole]
        for view, found in tiles:
            assert isinstance(found, Detections)
            assert view.window is not None
            margin = _BORDER_PX * (view.window[2] - view.window[0]) / view.size[1]
            kept = ~cut_by(view.window, original, found.boxes, margin)
            views.append(Detections(found.boxes[kept], found.scores[kept], found.labels[kept]))
        fused = fuse(views, self.merge_iou, "max")
        top = slice(0, self.max_detections)
        return Detections(fused.boxes[top], fused.scores[top], fused.labels[top])

    def new_merge(self) -> Merge:
        """Returns a merge by weighted boxes fusion, or by one suppression over all views."""
        return _MergeBoxes(self)

    def new_meter(self) -> Meter:
        """Returns a meter of COCO average precision."""
        return _AveragePrecision(self.classes)


class _MergeBoxes:
    def __init__(self, task: Detection) -> None:
        self._task = task
        self._views: list[Detections] = []

    def add(self, prediction: Prediction) -> None:
        assert isinstance(prediction, Detections)
        self._views.append(prediction)

    def result(self) -> Prediction:
        if len(self._views) == 1:
            return self._views[0]
        if self._task.merge == "wbf":
            return fuse(self._views, self._task.merge_iou)
        everything = Detections(
            np.concatenate([view.boxes for view in self._views]),
            np.concatenate([view.scores for view in self._views]),
            np.concatenate([view.labels for view in self._views]),
        )
        threshold = 1.0 if self._task.nms_iou is None else self._task.nms_iou
        return nms(everything, threshold, self._task.max_detections)


def fuse(views: Sequence[Detections], iou_threshold: float, confidence: ConfidenceType = "avg") -> Detections:
    """Returns the weighted boxes fusion of several detections of one picture, best first.

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


class _Truth:
    """One picture's boxes in the form that the average-precision code reads; it drops the picture itself."""

    def __init__(self, sample: Sample) -> None:
        assert sample.boxes is not None
        assert sample.box_labels is not None
        self.boxes, self.labels = sample.boxes, sample.box_labels
        self.ignored_boxes, self.ignored_labels = sample.ignored_boxes, sample.ignored_labels
        self.size: Size = sample.size


class _AveragePrecision:
    def __init__(self, classes: ClassList) -> None:
        self._classes = classes
        self._truth: list[_Truth] = []
        self._found: list[Detections] = []

    def add(self, sample: Sample, prediction: Prediction) -> None:
        assert isinstance(prediction, Detections)
        self._truth.append(_Truth(sample))
        self._found.append(prediction)

    def state(self) -> Any:
        return self._truth, self._found

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:
        # boxes of equal score are ranked in the order of their pictures, so the order is part of the result
        truth = [picture for pictures, _ in states for picture in pictures]
        found = [boxes for _, pictures in states for boxes in pictures]
        self._truth, self._found = [truth[i] for i in order], [found[i] for i in order]

    def result(self) -> Metrics:
        ap = coco_average_precision(self._truth, self._found, self._classes)
        labels = [truth.labels for truth in self._truth]
        counts = np.bincount(np.concatenate(labels) if labels else [], minlength=len(self._classes))
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
                "class": list(self._classes.names),
                "ap50": ap.ap50_per_class.tolist(),
                "ap50_95": ap.ap50_95_per_class.tolist(),
                "boxes": counts.astype(float).tolist(),
            },
            curves={
                name: (ap.recall, curve)
                for name, curve in zip(self._classes.names, ap.precision, strict=True)
                if not np.isnan(curve).any()
            },
        )
