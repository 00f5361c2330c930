"""What a task is: WHAT is asked of a picture, independent of HOW a head answers (numpy only, never imports paddle).

A task turns samples into target arrays, a head's raw arrays into a prediction in original-image coordinates, merges the
predictions of several views, and measures. Any head that emits the task's raw arrays works with all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Gt, Interval

from ppmtl.ops.affine import Interpolation
from ppmtl.ops.tiles import Window
from ppmtl.structures import ClassList, ImageMeta, Prediction, Sample, Size

Raw = Mapping[str, np.ndarray]
Share = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class View:
    """One way to show a picture to the network: stretched to ``size``, mirrored or not.

    Attributes:
        window: (x1, y1, x2, y2) whole pixels of the picture: only this part of it is shown; None = all of it.
    """

    size: Size
    flip: bool = False
    interpolation: Interpolation = "linear"
    window: Window | None = None


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Several views of one picture instead of one.

    Attributes:
        scales: factors on the plain input size, e.g. (1.0, 1.2, 1.6).
        sizes: explicit (height, width) of the views; replaces ``scales`` when given.
        flip: add the mirrored picture of every view.
        snap: view sides are rounded to the nearest multiple of this (1 = leave them).
    """

    __test__ = False  # pytest would collect a class named Test*

    scales: tuple[Annotated[float, Gt(0)], ...] = (1.0,)
    sizes: tuple[tuple[Annotated[int, Gt(0)], Annotated[int, Gt(0)]], ...] = ()
    flip: bool = True
    snap: Annotated[int, Gt(0)] = 1


@dataclass(frozen=True)
class Slicing:
    """Show large pictures in overlapping tiles too, to the tasks that can put tiles together.

    Attributes:
        size: (height, width) of a tile in pixels of the picture; None = the task's own input size, so that a tile is
            shown pixel by pixel. Best is the size of the pictures that the model was trained on.
        overlap: (vertical, horizontal) share of a tile that the next one shows again. An object that is not well
            smaller than the overlap may be seen whole by no tile; it is left to the view of the whole picture.
    """

    size: tuple[Annotated[int, Gt(0)], Annotated[int, Gt(0)]] | None = None
    overlap: tuple[Share, Share] = (0.25, 0.25)


@dataclass(frozen=True)
class Metrics:
    """What a validation set measured for one task.

    Attributes:
        primary: the key of ``values`` that enters the challenge's score and picks the best model.
        values: {name: number}; fractions in 0..1, NaN where undefined.
        per_class: {column: one value per class}; the first column is the class name.
        confusion: (C, C) int64, rows = truth, columns = prediction; None where the task has none.
        curves: {class name: (recall, precision)}; empty where the task has none.
    """

    primary: str
    values: dict[str, float]
    per_class: dict[str, list[str] | list[float]] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


class Meter(Protocol):
    """Collects predictions of a validation set and measures them at the end."""

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Takes one picture's labels and the prediction for it."""

    def state(self) -> Any:
        """Returns everything added so far as plain arrays and lists, small enough to be sent to another process."""

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:
        """Replaces what was added by the states of several meters, so that the result has the bits of one meter's.

        Args:
            states: what :meth:`state` returned, one per process.
            order: permutation that brings the pictures of all states, one state after the other, into the data set's
                order. Sums of integers need not look at it; sums of floats and matchings of boxes do.
        """

    def result(self) -> Metrics:
        """Returns the metrics of everything added so far."""


class Merge(Protocol):
    """Collects the views of ONE picture; memory stays at one view's plus one running sum."""

    def add(self, prediction: Prediction) -> None:
        """Takes the prediction of one view, already in original-image coordinates."""

    def result(self) -> Prediction:
        """Returns the merged prediction. One view comes back unchanged, bit for bit."""


class Task(ABC):
    """One question asked of a picture. Subclasses are listed under ``ppmtl/tasks`` and chosen by ``type:``.

    Args:
        name: the task's key in the config, e.g. "seg".
        classes: its classes.
        input_size: (height, width) the picture is stretched to; None = the original size.
        long_side: instead of ``input_size``: the longer side in pixels, aspect kept.
        interpolation: how the picture is resampled.
        tta: the views used when test-time augmentation is on.
    """

    task_type: str

    def __init__(
        self,
        name: str,
        classes: ClassList,
        *,
        input_size: tuple[int, int] | None = None,
        long_side: int | None = None,
        interpolation: Interpolation = "linear",
        tta: TestTimeAugmentation | None = None,
    ) -> None:
        if input_size is not None and long_side is not None:
            raise ValueError(
                f"tasks.{name}: give input_size (stretch) or long_side (aspect kept), not both; "
                f"got input_size={list(input_size)} and long_side={long_side}"
            )
        self.name, self.classes = name, classes
        self.input_size, self.long_side, self.interpolation = input_size, long_side, interpolation
        self.tta = tta or TestTimeAugmentation()

    def plain_size(self, original: Size) -> Size:
        """Returns the (height, width) at which a picture of ``original`` size is shown without augmentation."""
        if self.input_size is not None:
            return self.input_size
        if self.long_side is None:
            return original
        factor = self.long_side / max(original)
        return max(1, round(original[0] * factor)), max(1, round(original[1] * factor))

    def views(self, original: Size, *, augment: bool) -> list[View]:
        """Returns the views of a picture of ``original`` size; exactly one when ``augment`` is off."""
        plain = self.plain_size(original)
        if not augment:
            return [View(plain, interpolation=self.interpolation)]
        snap = self.tta.snap
        sizes: Sequence[Size] = self.tta.sizes or [
            # int(x + .5): reference/model.md section 7, PaddleSeg's rounding of scaled sizes
            (int(plain[0] * s + 0.5), int(plain[1] * s + 0.5))
            for s in self.tta.scales
        ]
        snapped = [(max(snap, round(h / snap) * snap), max(snap, round(w / snap) * snap)) for h, w in sizes]
        flips = (False, True) if self.tta.flip else (False,)
        return [View(size, flip, self.interpolation) for size in snapped for flip in flips]

    def tiles(self, original: Size, slicing: Slicing) -> list[View]:  # noqa: ARG002
        """Returns views of parts of a large picture; none for tasks that cannot put them together."""
        return []

    def join_tiles(self, whole: Prediction, tiles: Sequence[tuple[View, Prediction]], original: Size) -> Prediction:
        """Returns the prediction for a picture that was also seen in ``tiles``.

        Args:
            whole: from the views of the whole picture, merged.
            tiles: (view, prediction in original coordinates) of what :meth:`tiles` returned.
            original: (height, width) of the picture.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no tiles")

    def change_tta(self, given: Mapping[str, Any]) -> None:
        """Replaces these fields of the task's test-time augmentation, e.g. by what the command line says."""
        self.tta = replace(self.tta, **given)

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Returns the target arrays of a batch; raises ValueError naming a sample that lacks this task's label."""

    @abstractmethod
    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> Prediction:
        """Returns the prediction of picture ``index`` of a batch, in original-image coordinates.

        Args:
            raw: the head's arrays for the whole batch (the raw contract is in the task's module).
            index: row of the batch.
            meta: how that input came from its picture.
            single: no other view follows, so nothing needs to be kept for a merge.
        """

    @abstractmethod
    def new_merge(self) -> Merge:
        """Returns an empty merge for one picture."""

    @abstractmethod
    def new_meter(self) -> Meter:
        """Returns an empty meter for one validation set."""
