"""A class for every pixel.

Raw contract: ``probs`` (B, C, h, w) float32, softmaxed over C, at any resolution of the network input (h and w may be
smaller than the input; they cover the same field of view).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import cv2
import numpy as np

from ppmtl.ops.affine import Interpolation
from ppmtl.ops.confusion import class_iou, confusion_matrix, mean_iou
from ppmtl.structures import IGNORE_LABEL, ClassList, ImageMeta, Prediction, Sample, SegMap, Size
from ppmtl.tasks.base import Merge, Meter, Metrics, Raw, Task, TestTimeAugmentation

AbsentClass = Literal["skip", "zero", "one"]


class Segmentation(Task):
    """Which of the classes does each pixel show? mIoU over the whole set, at original size, is the challenge's measure.

    Args:
        absent: how a class that neither truth nor prediction contains enters the mean: "skip" leaves it out, "zero" is
            what the challenge's scorer does (paddleseg 2.7.0), "one" is later PaddleSeg. All three are always reported.
        average: what the views of one picture are averaged as. "logits" averages log-probabilities, which has the same
            argmax as averaging logits, because they differ by a constant per pixel.
    """

    task_type = "segmentation"

    def __init__(
        self,
        name: str,
        classes: ClassList,
        *,
        input_size: tuple[int, int] | None = None,
        long_side: int | None = None,
        interpolation: Interpolation = "linear",
        tta: TestTimeAugmentation | None = None,
        absent: AbsentClass = "skip",
        average: Literal["probs", "logits"] = "probs",
    ) -> None:
        super().__init__(
            name, classes, input_size=input_size, long_side=long_side, interpolation=interpolation, tta=tta
        )
        if len(classes) > IGNORE_LABEL:
            raise ValueError(
                f"classes.{name}: 8-bit label maps hold at most {IGNORE_LABEL} classes, got {len(classes)}"
            )
        self.absent: AbsentClass = absent
        self.average = average

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Returns {"label_map": (B, H, W) int64}, 255 = not labelled."""
        maps = []
        for sample in samples:
            if sample.label_map is None:
                raise ValueError(
                    f"{sample.path}: task '{self.name}' needs a label map for every picture, this one has none"
                )
            maps.append(sample.label_map)
        return {"label_map": np.stack(maps).astype(np.int64)}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> Prediction:
        """Returns the label map of one picture at original size."""
        probs = _unmirrored(np.asarray(raw["probs"][index], np.float32), meta)
        if single:
            return SegMap(_labels_at(probs, meta.original_size))
        probs = _resized(probs, meta.original_size)
        return SegMap(_argmax(probs), probs if self.average == "probs" else np.log(probs + np.finfo(np.float32).tiny))

    def new_merge(self) -> Merge:
        """Returns a merge that keeps one running sum of probabilities."""
        return _MeanMap()

    def new_meter(self) -> Meter:
        """Returns a meter of mean IoU and pixel accuracy."""
        return _IoU(self.classes, self.absent)


def _argmax(probs: np.ndarray) -> np.ndarray:
    return cast(np.ndarray, np.argmax(probs, axis=0).astype(np.uint8))


def _unmirrored(probs: np.ndarray, meta: ImageMeta) -> np.ndarray:
    """Returns (C, h, w) with the view's mirroring undone. A view is a scale and perhaps a mirror; the scale remains."""
    shear = meta.to_original[[0, 1], [1, 0]]
    if np.abs(shear).max() > 1e-9 or meta.to_original[1, 1] <= 0:
        raise ValueError(
            f"{meta.path}: segmentation views may scale and mirror, got the affine {meta.to_original.tolist()}"
        )
    return probs[:, :, ::-1] if meta.to_original[0, 0] < 0 else probs


def _resized(probs: np.ndarray, size: Size) -> np.ndarray:
    """Returns (C, H, W) at ``size``."""
    height, width = size
    if probs.shape[1:] == size:
        return np.ascontiguousarray(probs)
    # cv2.resize is the half-pixel bilinear of F.interpolate(align_corners=False); channels go last, 128 at a time at most
    channels_last = np.ascontiguousarray(probs.transpose(1, 2, 0))
    resized = cv2.resize(channels_last, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized.reshape(height, width, -1).transpose(2, 0, 1))


def _labels_at(probs: np.ndarray, size: Size) -> np.ndarray:
    """Returns the (H, W) uint8 argmax of :func:`_resized`, made class by class.

    With 19 classes that takes a sixth of the time and, for a 12-megapixel photo, 0.2 GB instead of 1.9 GB. The resized
    numbers differ in the last bit, so exact ties may fall to another class: 3 pixels of a million, on random numbers.
    """
    if probs.shape[1:] == size:
        return _argmax(probs)
    labels = np.zeros(size, np.uint8)
    best = cv2.resize(np.ascontiguousarray(probs[0]), size[::-1], interpolation=cv2.INTER_LINEAR)
    for index in range(1, len(probs)):
        layer = cv2.resize(np.ascontiguousarray(probs[index]), size[::-1], interpolation=cv2.INTER_LINEAR)
        np.copyto(labels, index, where=layer > best)
        np.maximum(best, layer, out=best)
    return labels


class _MeanMap:
    def __init__(self) -> None:
        self._first: SegMap | None = None
        self._sum: np.ndarray | None = None

    def add(self, prediction: Prediction) -> None:
        assert isinstance(prediction, SegMap)
        if self._first is None:
            self._first = prediction
            return
        assert prediction.probs is not None
        assert self._first.probs is not None
        if self._sum is None:
            self._sum = self._first.probs.copy()
        self._sum += prediction.probs

    def result(self) -> Prediction:
        assert self._first is not None
        if self._sum is None:
            return SegMap(self._first.labels)
        return SegMap(_argmax(self._sum))


class _IoU:
    def __init__(self, classes: ClassList, absent: AbsentClass) -> None:
        self._classes, self._absent = classes, absent
        self._matrix = np.zeros((len(classes), len(classes)), np.int64)

    def add(self, sample: Sample, prediction: Prediction) -> None:
        assert isinstance(prediction, SegMap)
        if sample.label_map is None or sample.label_map.shape != prediction.labels.shape:
            got = None if sample.label_map is None else sample.label_map.shape
            raise ValueError(f"{sample.path}: prediction has shape {prediction.labels.shape}, label map has {got}")
        self._matrix += confusion_matrix(prediction.labels, sample.label_map, len(self._classes), IGNORE_LABEL)

    def state(self) -> Any:
        return self._matrix

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:  # noqa: ARG002  (a sum of integers has no order)
        self._matrix = np.sum(states, axis=0)

    def result(self) -> Metrics:
        matrix = self._matrix
        iou = class_iou(matrix)
        truth = matrix.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = np.diag(matrix) / truth
            accuracy = float(np.diag(matrix).sum() / matrix.sum())
        return Metrics(
            primary="miou",
            values={
                "miou": mean_iou(matrix, self._absent),
                "pixel_accuracy": accuracy,
                "miou_absent_skipped": mean_iou(matrix, "skip"),
                "miou_absent_zero": mean_iou(matrix, "zero"),
                "miou_absent_one": mean_iou(matrix, "one"),
            },
            per_class={
                "class": list(self._classes.names),
                "iou": iou.tolist(),
                "recall": recall.tolist(),
                "pixels": truth.astype(float).tolist(),
            },
            confusion=matrix,
        )
