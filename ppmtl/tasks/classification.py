"""One class for the whole image.

Raw contract: ``probs`` (B, C) float32, rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from typing_extensions import TypedDict

from ppmtl.data.labels import ClassIndex
from ppmtl.ops.drawing import write_text
from ppmtl.structures import ClassList, ImageMeta, Label, Sample, Size
from ppmtl.tasks.base import ListMeter, Merge, Meter, Metrics, Raw, Task

_TOP = 5
ClassScore = TypedDict("ClassScore", {"class": str, "class_index": int, "score": float})


class TopClasses(TypedDict):
    """The five most probable classes, best first."""

    top: list[ClassScore]


@dataclass(frozen=True)
class ClassProbs:
    """Class probabilities of one image: ``probs`` (C,) float32."""

    probs: np.ndarray

    def __post_init__(self) -> None:
        if self.probs.ndim != 1:
            raise ValueError(f"ClassProbs needs probs (C,), got shape {self.probs.shape}")


@dataclass(eq=False)
class Classification(Task[ClassProbs]):
    """What kind of vehicle is this? Top-1 is the challenge's measure."""

    task_type: ClassVar[str] = "classification"
    label_type: ClassVar[type[Label]] = ClassIndex
    json_type: ClassVar[Any] = TopClasses
    tolerances: ClassVar[Mapping[str, float]] = {"probs": 1e-4}
    layer: ClassVar[int] = 2
    section: ClassVar[str | None] = "cls"

    def _takes_mixed(self, transform: Callable[..., Any]) -> bool:
        return getattr(transform, "shares_classes", False)

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """{"class_index": (B,) int64}, -1 for an image without a label.

        A batch with a mixed image has {"class_shares": (B, C) float32} too, each row's sum 1 (0 without a label).
        """
        labels = [self.label_or_none(sample, ClassIndex) for sample in samples]
        indices = np.asarray([-1 if label is None else label.index for label in labels], np.int64)
        if not any(label is not None and label.shares for label in labels):
            return {"class_index": indices}
        shares = np.zeros((len(labels), len(self.classes)), np.float32)
        for row, label in zip(shares, labels, strict=True):
            for index, share in (label.shares or {label.index: 1.0}).items() if label is not None else ():
                row[index] = share
        return {"class_index": indices, "class_shares": shares}

    def example(self, size: Size) -> ClassIndex:  # noqa: ARG002
        """The last class."""
        return ClassIndex(len(self.classes) - 1)

    def raw_shapes(self, batch: int, size: Size) -> dict[str, tuple[int | None, ...]]:  # noqa: ARG002
        """{"probs": (B, C)}."""
        return {"probs": (batch, len(self.classes))}

    def perfect_raw(self, label: Label, size: Size) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Probability 1 for the label's class."""
        return {"probs": self.truth(label).probs[None]}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> ClassProbs:  # noqa: ARG002
        """The class probabilities of one image."""
        return ClassProbs(np.asarray(raw["probs"][index], np.float32))

    def truth(self, label: Label) -> ClassProbs:
        """Probability 1 for the label's class."""
        assert isinstance(label, ClassIndex)
        return ClassProbs(np.eye(len(self.classes), dtype=np.float32)[label.index])

    def new_merge(self) -> Merge[ClassProbs]:
        """A merge that averages probabilities (reference/model.md section 7)."""
        return _MeanProbs()

    def new_meter(self) -> Meter[ClassProbs]:
        """A meter of Top-1 and Top-5.

        Metrics:
            top1: share of images whose most probable class is the label, 0 to 1; the primary metric
            top5: share of images whose label is among the five most probable classes, 0 to 1
        """
        return _TopK(self)

    def to_json(self, prediction: ClassProbs, *, threshold: float = 0.0) -> dict[str, Any]:  # noqa: ARG002
        """{"top": [{"class", "class_index", "score"}]}, the five best; a threshold does not apply."""
        best = np.argsort(-prediction.probs, kind="stable")[:_TOP].tolist()
        probs = prediction.probs.tolist()
        return {"top": [{"class": self.classes.names[i], "class_index": i, "score": round(probs[i], 5)} for i in best]}

    def from_results(self, stored: Any, size: Size) -> ClassProbs:  # noqa: ARG002
        """The classes named, best first; the others have probability 0."""
        probs = np.zeros(len(self.classes), np.float32)
        indices = [int(row["class_index"]) for row in stored]
        if not indices or not all(0 <= index < len(probs) for index in indices) or len(set(indices)) < len(indices):
            raise ValueError(f"needs different classes from 0 to {len(probs) - 1}, best first, got {indices}")
        for rank, (index, row) in enumerate(zip(indices, stored, strict=True)):
            # Rounded scores may tie; what is added is less than the last digit and keeps the order
            probs[index] = float(row["score"]) + (_TOP - rank) * 1e-6
        return ClassProbs(probs)

    def arrays(self, prediction: ClassProbs, *, threshold: float = 0.0) -> dict[str, Any]:  # noqa: ARG002
        """{"probs": (C,) float32; the most probable class as "label", "name" and "score"}; a threshold does not apply."""
        best = int(prediction.probs.argmax())
        score = float(prediction.probs[best])
        return {"probs": prediction.probs, "label": best, "name": self.classes.names[best], "score": score}

    def draw(self, canvas: np.ndarray, prediction: ClassProbs, threshold: float) -> np.ndarray:  # noqa: ARG002
        """The best class in the corner."""
        best = int(prediction.probs.argmax())
        score = f" {prediction.probs[best]:.2f}"
        write_text(canvas, self.classes.names[best], (4, 4), (32, 32, 32), end=score)
        return canvas

    def image_score(self, sample: Sample, prediction: ClassProbs, threshold: float) -> float:  # noqa: ARG002
        """The probability of the label's class: Top-1 of one image would be 0 or 1."""
        return float(prediction.probs[self.label(sample, ClassIndex).index])

    def submission_entry(self, prediction: ClassProbs, *, max_boxes: int) -> Any:  # noqa: ARG002
        """The most probable class."""
        if not np.isfinite(prediction.probs).all():
            raise ValueError(f"class probabilities must be finite, got {prediction.probs}")
        return int(prediction.probs.argmax())


class _MeanProbs:
    def __init__(self) -> None:
        self._views: list[np.ndarray] = []

    def add(self, prediction: ClassProbs) -> None:
        self._views.append(prediction.probs)

    def result(self) -> ClassProbs:
        return ClassProbs(
            self._views[0] if len(self._views) == 1 else np.stack(self._views).mean(axis=0, dtype=np.float32)
        )


class _TopK(ListMeter):
    """Keeps the index of the class and those of the best classes."""

    def __init__(self, task: Classification) -> None:
        super().__init__()
        self._task = task

    def add(self, sample: Sample, prediction: ClassProbs) -> None:
        self._truth.append(self._task.label(sample, ClassIndex).index)
        self._found.append(np.argsort(-prediction.probs, kind="stable")[:_TOP])

    def result(self) -> Metrics:
        if not self._truth:
            return Metrics("top1", {"top1": float("nan"), "top5": float("nan")})
        classes: ClassList = self._task.classes
        truth, ranked = np.asarray(self._truth), np.stack(self._found)
        hits = ranked == truth[:, None]
        matrix = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(matrix, (truth, ranked[:, 0]), 1)
        with np.errstate(invalid="ignore"):
            recall = np.diag(matrix) / matrix.sum(axis=1)
            precision = np.diag(matrix) / matrix.sum(axis=0)
        return Metrics(
            primary="top1",
            values={"top1": float(hits[:, 0].mean()), "top5": float(hits.any(axis=1).mean())},
            per_class={
                "class": list(classes.names),
                "recall": recall.tolist(),
                "precision": precision.tolist(),
                "images": matrix.sum(axis=1).astype(float).tolist(),
            },
            confusion=matrix,
        )
