"""The best and the worst images of an evaluation, drawn: labels left, prediction right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ppmtl.predict.drawing import draw_sample
from ppmtl.structures import Sample
from ppmtl.tasks.base import Task

_WIDTH = 1000  # of a pair in pixels, at most; a page embeds two dozen of them


@dataclass(frozen=True)
class ScoredImage:
    """One image of an evaluation.

    Attributes:
        score: how good the task's prediction is; ``Task.image_score``.
        position: of the image in its data set.
        path: the image file.
        pair: (H, W, 3) uint8 RGB, labels left and prediction right, made smaller.
    """

    score: float
    position: int
    path: str
    pair: np.ndarray


@dataclass(frozen=True)
class Extremes:
    """The ``worst`` images of one task, the worst first, and the ``best`` of the others, the best first."""

    worst: tuple[ScoredImage, ...] = ()
    best: tuple[ScoredImage, ...] = ()


class ExtremesMeter:
    """Keeps the ``count`` best and worst images of those added; they are drawn when they enter, so memory stays small."""

    def __init__(self, task: Task[Any], count: int, threshold: float) -> None:
        self._task, self._count, self._threshold = task, count, threshold
        self.kept: list[ScoredImage] = []

    def add(self, sample: Sample, prediction: Any, position: int) -> None:
        """Takes one image and the prediction for it; without a label of this task there is nothing to compare."""
        if self._task.name not in sample.labels:
            return
        score = self._task.image_score(sample, prediction, self._threshold)
        lower = sum(image.score <= score for image in self.kept)
        higher = sum(image.score >= score for image in self.kept)
        is_full = len(self.kept) == 2 * self._count
        if math.isnan(score) or (is_full and min(lower, higher) >= self._count):
            return
        name = self._task.name
        pair = _shrunk(draw_sample(sample, {name: prediction}, {name: self._task}, self._threshold))
        self.kept.append(ScoredImage(score, position, sample.path, pair))
        found = extremes(self.kept, self._count)
        self.kept = [*found.worst, *found.best]


def extremes(images: Iterable[ScoredImage], count: int) -> Extremes:
    """The ``count`` best and worst; of equal ones the first in the data set, whatever the order of ``images``."""
    ranked = sorted(images, key=lambda image: (image.score, image.position))
    worst, others = ranked[:count], ranked[count:]
    return Extremes(tuple(worst), tuple(sorted(others, key=lambda image: (-image.score, image.position))[:count]))


def _shrunk(pair: np.ndarray) -> np.ndarray:
    height, width = pair.shape[:2]
    if width <= _WIDTH:
        return pair
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    return np.asarray(cv2.resize(pair, size, interpolation=cv2.INTER_AREA))
