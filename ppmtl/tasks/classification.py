"""One class for the whole picture.

Raw contract: ``probs`` (B, C) float32, rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppmtl.structures import ClassList, ClassProbs, ImageMeta, Prediction, Sample
from ppmtl.tasks.base import Merge, Meter, Metrics, Raw, Task


class Classification(Task):
    """What kind of vehicle is this? Top-1 is the challenge's measure."""

    task_type = "classification"

    def collate(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Returns {"class_index": (B,) int64}."""
        for sample in samples:
            if sample.class_index is None:
                raise ValueError(
                    f"{sample.path}: task '{self.name}' needs a class for every picture, this one has none"
                )
        return {"class_index": np.asarray([sample.class_index for sample in samples], np.int64)}

    def decode(self, raw: Raw, index: int, meta: ImageMeta, *, single: bool) -> Prediction:  # noqa: ARG002
        """Returns the class probabilities of one picture."""
        return ClassProbs(np.asarray(raw["probs"][index], np.float32))

    def new_merge(self) -> Merge:
        """Returns a merge that averages probabilities (reference/model.md section 7)."""
        return _MeanProbs()

    def new_meter(self) -> Meter:
        """Returns a meter of Top-1 and Top-5."""
        return _TopK(self.classes)


class _MeanProbs:
    def __init__(self) -> None:
        self._views: list[np.ndarray] = []

    def add(self, prediction: Prediction) -> None:
        assert isinstance(prediction, ClassProbs)
        self._views.append(prediction.probs)

    def result(self) -> Prediction:
        return ClassProbs(
            self._views[0] if len(self._views) == 1 else np.stack(self._views).mean(axis=0, dtype=np.float32)
        )


class _TopK:
    def __init__(self, classes: ClassList) -> None:
        self._classes = classes
        self._truth: list[int] = []
        self._ranked: list[np.ndarray] = []

    def add(self, sample: Sample, prediction: Prediction) -> None:
        assert isinstance(prediction, ClassProbs)
        assert sample.class_index is not None
        self._truth.append(sample.class_index)
        self._ranked.append(np.argsort(-prediction.probs, kind="stable")[:5])

    def state(self) -> Any:
        return self._truth, self._ranked

    def merge(self, states: Sequence[Any], order: np.ndarray) -> None:
        truth = [label for labels, _ in states for label in labels]
        ranked = [row for _, rows in states for row in rows]
        self._truth, self._ranked = [truth[i] for i in order], [ranked[i] for i in order]

    def result(self) -> Metrics:
        if not self._truth:
            return Metrics("top1", {"top1": float("nan"), "top5": float("nan")})
        truth, ranked = np.asarray(self._truth), np.stack(self._ranked)
        hits = ranked == truth[:, None]
        count = len(self._classes)
        matrix = np.zeros((count, count), np.int64)
        np.add.at(matrix, (truth, ranked[:, 0]), 1)
        with np.errstate(invalid="ignore"):
            recall = np.diag(matrix) / matrix.sum(axis=1)
            precision = np.diag(matrix) / matrix.sum(axis=0)
        return Metrics(
            primary="top1",
            values={"top1": float(hits[:, 0].mean()), "top5": float(hits.any(axis=1).mean())},
            per_class={
                "class": list(self._classes.names),
                "recall": recall.tolist(),
                "precision": precision.tolist(),
                "pictures": matrix.sum(axis=1).astype(float).tolist(),
            },
            confusion=matrix,
        )
