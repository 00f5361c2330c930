"""What a task is: WHAT is asked of an image, independent of HOW a head answers (numpy only, never imports paddle).

A task type is one file in this folder: it turns labels into target arrays and a head's raw arrays into a prediction in
original-image coordinates, merges the predictions of several views, measures, draws and writes JSON. No other room looks
into a prediction. ``tests/contracts/test_tasks.py`` checks every file of the folder against what is declared here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from ppmtl.ops.affine import Interpolation
from ppmtl.structures import ClassList, ImageMeta, Label, Sample, Size
from ppmtl.tasks.views import Slicing, TestTimeAugmentation, View

Raw = Mapping[str, np.ndarray]
P = TypeVar("P")  # the task's prediction of one image
P_in = TypeVar("P_in", contravariant=True)
L = TypeVar("L", bound=Label)


@dataclass(frozen=True)
class Metrics:
    """What a validation set measured for one task.

    Attributes:
        primary: the key of ``values`` that enters the challenge's score and picks the best model.
        values: {name: number}; fractions in 0..1, NaN where undefined.
        per_class: {column: one value per class}; the first column is the class name.
        confusion: (C, C) int64, rows = truth, columns = prediction; or (C + 1, C + 1), the last being the background;
            None where the task has none.
        confusion_note: what the matrix counts, where that is not plain.
        curves: {class name: (recall, precision)}; empty where the task has none.
    """

    primary: str
    values: dict[str, float]
    per_class: dict[str, list[str] | list[float]] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    confusion_note: str = ""
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


class Meter(Protocol[P_in]):
    """Collects predictions of a validation set and measures them at the end."""

    def add(self, sample: Sample, prediction: P_in) -> None:
        """Takes one image's labels and the prediction for it."""

    def state(self) -> Any:
        """Everything added so far as plain arrays and lists, small enough to be sent to another process."""

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:
        """Replaces what was added by the states of several meters, so that the result has the bits of one meter's.

        Args:
            states: what :meth:`state` returned, one per process.
            order: permutation that brings the images of all states, one state after the other, into the data set's
                order. Sums of integers need not look at it; sums of floats and matchings of boxes do.
        """

    def result(self) -> Metrics:
        """The metrics of everything added so far."""


class ListMeter:
    """What meters share that keep something of every image: what is true, and what was found.

    The order of the images is part of a result: boxes of equal score are ranked in it, and sums of floats hang on it.
    """

    def __init__(self) -> None:
        self._truth: list[Any] = []
        self._found: list[Any] = []

    def state(self) -> Any:
        """See :class:`Meter`."""
        return self._truth, self._found

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:
        """See :class:`Meter`."""
        truth = [image for images, _ in states for image in images]
        found = [image for _, images in states for image in images]
        self._truth, self._found = [truth[i] for i in order], [found[i] for i in order]


class Merge(Protocol[P]):
    """Collects the views of ONE image; memory stays at one view's plus one running sum."""

    def add(self, prediction: P) -> None:
        """Takes the prediction of one view, already in original-image coordinates."""

    def result(self) -> P:
        """The merged prediction. One view comes back unchanged, bit for bit."""


@dataclass(eq=False)
class Task(ABC, Generic[P]):
    """One question asked of an image. Subclasses are chosen by ``type:``; their keyword-only fields are config keys.

    Args:
        name: the task's key in the config, e.g. "seg".
        classes: its classes.
        input_size: (height, width) [px] the image is shown at; None = the original size.
        letterbox: with ``input_size``: keep the aspect and pad, instead of stretching.
        long_side: instead of ``input_size``: the longer side [px], aspect kept.
        interpolation: how the image is resampled.
        tta: the views used when test-time augmentation is on.
    """

    task_type: ClassVar[str]  # heads say by it which tasks they can answer
    label_type: ClassVar[type[Label]]  # what a data set must have for an image
    json_type: ClassVar[Any]  # the type of what to_json returns, for the service's documentation
    tolerances: ClassVar[Mapping[str, float]]  # {raw array: largest absolute difference of an exported graph}
    layer: ClassVar[int] = 1  # drawing order: masks 0, objects 1, text 2
    section: ClassVar[str | None] = None  # of the challenge's submission; None = it does not ask for this
    names_classes: ClassVar[bool] = True  # an answer is about classes; the words of a vocabulary are none
    mirrors: ClassVar[bool] = True  # the answer for a mirrored image is the mirrored answer
    merges_parts: ClassVar[bool] = False  # the merge takes views of parts of an image; else join_tiles does

    name: str
    classes: ClassList
    _: KW_ONLY
    input_size: tuple[int, int] | None = None
    letterbox: bool = False
    long_side: int | None = None
    interpolation: Interpolation = "linear"
    tta: TestTimeAugmentation = field(default_factory=TestTimeAugmentation)

    def __post_init__(self) -> None:
        if self.input_size is not None and self.long_side is not None:
            raise ValueError(
                f"tasks.{self.name}: give input_size (stretch) or long_side (aspect kept), not both; "
                f"got input_size={list(self.input_size)} and long_side={self.long_side}"
            )
        if self.letterbox and self.input_size is None:
            raise ValueError(f"tasks.{self.name}: letterbox pads to input_size; set it too")

    # How the image is shown

    def plain_size(self, original: Size) -> Size:
        """The (height, width) at which an image of size ``original`` is shown without augmentation."""
        if self.input_size is not None:
            return self.input_size
        if self.long_side is None:
            return original
        factor = self.long_side / max(original)
        return max(1, round(original[0] * factor)), max(1, round(original[1] * factor))

    def views(self, original: Size, *, augment: bool) -> list[View]:
        """The views of an image of size ``original``; exactly one when ``augment`` is off."""
        plain = self.plain_size(original)
        if not augment:
            return [View(plain, interpolation=self.interpolation, letterbox=self.letterbox)]
        flips = (False, True) if self.tta.flip and self.mirrors else (False,)
        sizes = self.tta.sizes_for(plain)
        return [View(size, flip, self.interpolation, letterbox=self.letterbox) for size in sizes for flip in flips]

    def tiles(self, original: Size, slicing: Slicing) -> list[View]:  # noqa: ARG002
        """Views of parts of a large image; none for tasks that cannot put them together."""
        return []

    def join_tiles(self, full: P, tiles: Sequence[tuple[View, P]], original: Size) -> P:
        """The prediction for an image that was also seen in ``tiles``.

        Args:
            full: from the views of the full image, merged.
            tiles: (view, prediction in original coordinates) of what :meth:`tiles` returned.
            original: (height, width) of the image.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no tiles")

    def change_tta(self, given: Mapping[str, Any]) -> None:
        """Replaces these fields of the task's test-time augmentation, e.g. by what the command line says."""
        self.tta = replace(self.tta, **given)

    # Labels and targets

    def refuses(self, transform: Callable[..., Any]) -> str:
        """Why a view with this transform cannot supervise the task, or an empty text."""
        if getattr(transform, "mixes", False) and not self._takes_mixed(transform):
            return (
                f"{type(transform).__name__} shows several images as one, of which nobody knows the {self.label_type.__name__} "
                f"of task '{self.name}'; remove it, or train the task with a view of its own"
            )
        return ""

    def _takes_mixed(self, transform: Callable[..., Any]) -> bool:  # noqa: ARG002
        return self.label_type.joined is not Label.joined

    def label(self, sample: Sample, kind: type[L]) -> L:
        """The sample's label for this task.

        Raises:
            ValueError: naming the sample, if it has none or one of another kind than ``kind``.
        """
        found = self.label_or_none(sample, kind)
        if found is None:
            raise ValueError(
                f"{sample.path}: task '{self.name}' needs a label of kind {kind.__name__}, this image has none; check the "
                "tasks of its source or evaluation set"
            )
        return found

    def label_or_none(self, sample: Sample, kind: type[L]) -> L | None:
        """The sample's label for this task, None where its data set has none; ValueError if it is of another kind."""
        found = sample.labels.get(self.name)
        if found is not None and not isinstance(found, kind):
            raise ValueError(
                f"{sample.path}: task '{self.name}' needs a label of kind {kind.__name__}, this image has "
                f"{type(found).__name__}; check the tasks of its source or evaluation set"
            )
        return found

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """The target arrays of a batch, none of them empty.

        An image without a label for this task is marked in them, and the heads leave it out of their losses: it is never
        a negative. A task whose targets cannot say so raises ValueError naming the image (:meth:`label` does).
        """

    @abstractmethod
    def example(self, size: Size) -> Label:
        """A small deterministic label for an image of ``size`` pixels (at least 16 x 16), for tests and cost studies."""

    def example_targets(self, batch: int, size: Size) -> dict[str, np.ndarray]:
        """What :meth:`collate` makes of ``batch`` images of ``size`` that carry the example label; 0 is allowed."""
        sample = Sample("example", np.zeros((*size, 3), np.uint8), {self.name: self.example(size)})
        targets = self.collate([sample] * max(batch, 1))
        return targets if batch else {name: array[:0] for name, array in targets.items()}

    def for_head(self) -> Mapping[str, Any]:
        """Keyword arguments for the head that answers this task, besides the number of classes; it need not have them."""
        return {}

    # Raw arrays and predictions

    @abstractmethod
    def raw_shapes(self, batch: int, size: Size) -> dict[str, tuple[int | None, ...]]:
        """The raw contract: {array: shape} that a head must give for inputs of ``size``; None = any. All are float32."""

    @abstractmethod
    def perfect_raw(self, label: Label, size: Size) -> dict[str, np.ndarray]:
        """The raw arrays, batch axis included, of a head that is right about one input of ``size`` with this label."""

    @abstractmethod
    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> P:
        """The prediction for image ``index`` of a batch, in original-image coordinates.

        Args:
            raw: the head's arrays for the whole batch.
            index: row of the batch.
            meta: how that input came from its image.
            single: no other view follows, so nothing needs to be kept for a merge.
        """

    @abstractmethod
    def truth(self, label: Label) -> P:
        """The label as a prediction that is certain of it; for drawing and for tests."""

    @abstractmethod
    def new_merge(self) -> Merge[P]:
        """An empty merge for one image."""

    @abstractmethod
    def new_meter(self) -> Meter[P]:
        """An empty meter for one validation set; the docstring explains the metrics below ``Metrics:``, one per line."""

    # Predictions for people and programs

    def image_score(self, sample: Sample, prediction: P, threshold: float) -> float:  # noqa: ARG002
        """How good the prediction for one image is, to find the best and worst of a set; more is better, NaN = no answer.

        Here: the primary metric of this image alone.

        Args:
            sample: the image with this task's label.
            prediction: in the image's coordinates.
            threshold: parts that score below it are not looked at, as in :meth:`draw`.
        """
        meter = self.new_meter()
        meter.add(sample, prediction)
        metrics = meter.result()
        return metrics.values[metrics.primary]

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """{class: RGB colour in which :meth:`draw` shows it}; empty where colours say nothing."""
        return {}

    @abstractmethod
    def to_json(self, prediction: P, *, threshold: float = 0.0) -> dict[str, Any]:
        """What was found in one image as JSON values; parts that score below ``threshold`` are left out."""

    def arrays(self, prediction: P, *, threshold: float = 0.0) -> dict[str, Any]:
        """What was found as arrays and plain values by name, for notebooks; here what :meth:`to_json` gives.

        Args:
            prediction: in original-image coordinates.
            threshold: parts that score below it are left out.
        """
        return self.to_json(prediction, threshold=threshold)

    def coco_results(self, prediction: P, *, threshold: float = 0.0) -> list[dict[str, Any]] | None:  # noqa: ARG002
        """What was found as entries of a COCO results file, without "image_id"; None where COCO has no form for it.

        Args:
            prediction: in original-image coordinates.
            threshold: parts that score below it are left out.

        Raises:
            ValueError: if a number is not finite.
        """
        return None

    def from_results(self, stored: Any, size: Size) -> P:  # noqa: ARG002
        """The prediction that a result file holds for one image, for measuring it without a network.

        Args:
            stored: the rows of :meth:`coco_results` as the file has them, the array of :meth:`mask`, or for a task without
                both the image's rows of the CSV file, texts by column.
            size: (height, width) of the image.

        Raises:
            ValueError: saying what is wrong with them.
        """
        raise ValueError(f"{type(self).__name__} does not read its results back; measure it with the weights")

    def mask(self, prediction: P) -> np.ndarray | None:  # noqa: ARG002
        """An (H, W) uint8 map that goes with the JSON as a PNG; None where the task has none."""
        return None

    @abstractmethod
    def draw(self, canvas: np.ndarray, prediction: P, threshold: float) -> np.ndarray:
        """The (H, W, 3) uint8 RGB image with the prediction drawn on it; ``canvas`` may be written into.

        Args:
            canvas: an image of the prediction's size.
            prediction: in this image's coordinates.
            threshold: parts that score below it are not drawn.
        """

    def submission_entry(self, prediction: P, *, max_boxes: int) -> Any:
        """What the challenge's submission says about one image in this task's ``section``, as a JSON value.

        Args:
            prediction: in original-image coordinates.
            max_boxes: at most so many boxes, the best.

        Raises:
            ValueError: if a number is not finite.
        """
        raise NotImplementedError(f"{type(self).__name__} has no section in the challenge's submission")
