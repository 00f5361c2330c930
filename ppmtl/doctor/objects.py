"""How large objects are when the network sees them: against cells, and against a head's anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ppmtl.data.findings import Finding
from ppmtl.data.source import Source
from ppmtl.doctor.report import Table
from ppmtl.doctor.samples import Examined
from ppmtl.ops.affine import apply_to_boxes
from ppmtl.tasks.base import Task

_SMALL = (2, 4, 8)  # px of the network input: hopeless, hard, one cell of the finest level of most detectors
_BINS = (0, 2, 4, 8, 16, 32, 64, 128, 256, 10**9)
_TOO_MANY_TINY, _TOO_MANY_UNANSWERED = 0.05, 0.02  # shares that are worth a warning
_DRAWS = 64  # training samples looked at per source

Answered = Callable[[np.ndarray], np.ndarray | None]  # sides (N, 2) -> number of anchors that would learn each


def trained_sides(source: Source) -> dict[str, dict[str, np.ndarray]]:
    """{view: {task: (N, 2) width and height in px of the objects}} of the first samples of a run, augmented.

    Raises:
        ValueError: if one of the samples cannot be read.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {view: {} for view in source.views}
    for number in range(min(_DRAWS, len(source.reader))):
        for view, sample in source.samples(*divmod(number, source.batch_size)).items():
            for task in source.views[view].tasks:
                if task in sample.labels:
                    found[view].setdefault(task, []).append(_sides(sample.labels[task].objects()))
    return {view: {task: np.concatenate(parts) for task, parts in of.items()} for view, of in found.items()}


def shown_sides(of_set: Examined, task: Task[Any]) -> np.ndarray:
    """(N, 2) width and height in px of the objects of a data set as evaluation shows them, without augmentation."""
    parts = [np.zeros((0, 2), np.float32)]
    for image, labels in zip(of_set.images, of_set.labels, strict=True):
        if labels is not None and task.name in labels.objects:
            (view,) = task.views(image.size, augment=False)
            boxes = np.array(labels.objects[task.name], np.float32)
            parts.append(_sides(apply_to_boxes(view.to_input(image.size), boxes)))
    return np.concatenate(parts)


def object_statistics(
    sides: Mapping[tuple[str, str], np.ndarray], answered: Mapping[str, Answered]
) -> tuple[Table, list[Finding]]:
    """A row per place and task of how large objects are there, and a warning where too many are too small or unanswered.

    Args:
        sides: {(place, task): (N, 2) width and height in px of the network input}.
        answered: {task: what its head's ``answered`` is}.
    """
    heads = ("shown by", "task", "objects", *(f"under {limit} px" for limit in _SMALL), "fit an anchor",
             *(f"{a} to {b}" if b < 10**9 else f"from {a}" for a, b in pairwise(_BINS)))  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    findings: list[Finding] = []
    for (place, task), of_place in sides.items():
        if not len(of_place):
            continue
        shorter = of_place.min(axis=1)
        under = [float((shorter < limit).mean()) for limit in _SMALL]
        counts = answered[task](of_place)
        share = None if counts is None else float((counts > 0).mean())
        bins = np.histogram(np.sqrt(of_place.prod(axis=1)), _BINS)[0]
        fit = "-" if share is None else f"{share:.1%}"
        rows.append((place, task, len(of_place), *(f"{part:.1%}" for part in under), fit, *map(int, bins)))
        findings += _object_findings(place, task, under, share)
    return Table(
        "Objects as the network sees them: shorter side, and side of a square of their area", heads, rows
    ), findings


def _object_findings(place: str, task: str, under: Sequence[float], share: float | None) -> Iterator[Finding]:
    if under[1] > _TOO_MANY_TINY:
        text = f"{under[1]:.0%} of the objects of task '{task}' have a side under {_SMALL[1]} px of the network input"
        yield Finding(place, f"{text}, {under[0]:.0%} under {_SMALL[0]} px", "warning", "tiny_objects")
    if share is not None and 1 - share > _TOO_MANY_UNANSWERED:
        text = f"no anchor fits {1 - share:.0%} of the objects of task '{task}'; the head cannot learn them"
        yield Finding(place, text, "warning", "anchor_misfit")


def _sides(boxes: np.ndarray) -> np.ndarray:
    sides: np.ndarray = np.abs(boxes[:, 2:] - boxes[:, :2])
    return sides
