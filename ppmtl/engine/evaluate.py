"""Measures any backend on labelled data sets."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm import tqdm

from ppmtl.inference import Backend, Pipeline
from ppmtl.structures import Prediction, Sample
from ppmtl.tasks.base import Metrics, Task


class Dataset(Protocol):
    """A labelled data set as the evaluation needs it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured.

    Attributes:
        metrics: {task: metrics}.
        seconds: {task: seconds per picture}, reading and post-processing included.
        examples: {task: [(picture, its sample, prediction)]} of the first few pictures.
    """

    metrics: dict[str, Metrics]
    seconds: dict[str, float]
    examples: dict[str, list[tuple[Sample, Prediction]]]

    @property
    def score(self) -> float:
        """Returns the challenge's score, the mean of the tasks' primary metrics; NaN as long as one of them is."""
        return float(np.mean([m.values[m.primary] for m in self.metrics.values()])) if self.metrics else float("nan")

    def value(self, name: str) -> float:
        """Returns "score" or "task.metric".

        Raises:
            ValueError: if there is no such metric; the message lists those that there are.
        """
        if name == "score":
            return self.score
        task, _, metric = name.partition(".")
        if task not in self.metrics or metric not in self.metrics[task].values:
            known = ["score"] + [f"{t}.{k}" for t, m in self.metrics.items() for k in m.values]
            raise ValueError(f"train.best_metric: got {name!r}, the evaluation measures {', '.join(known)}")
        return self.metrics[task].values[metric]


def evaluate(
    tasks: Mapping[str, Task],
    datasets: Mapping[str, Dataset],
    backend: Backend,
    *,
    augment: bool | Mapping[str, bool] = False,
    batch_size: int = 1,
    num_examples: int = 0,
    limit: int | None = None,
) -> Evaluation:
    """Returns the metrics of every task on its own data set.

    Args:
        tasks: {name: task}.
        datasets: {task name: labelled data set}.
        backend: what runs the network.
        augment: test-time augmentation, for all tasks or by task.
        batch_size: inputs of one size that run together.
        num_examples: pictures per task to hand back with their predictions, for looking at.
        limit: only the first so many pictures of each set; None = all.
    """
    metrics, seconds, examples = {}, {}, {}
    for name, dataset in datasets.items():
        on = augment if isinstance(augment, bool) else augment.get(name, False)
        pipeline = Pipeline({name: tasks[name]}, backend, augment=on, batch_size=batch_size)
        meter = tasks[name].new_meter()
        shown: list[tuple[Sample, Prediction]] = []
        count = len(dataset) if limit is None else min(limit, len(dataset))
        started = time.perf_counter()
        bar = tqdm(total=count, desc=f"evaluate {name}", unit="img", disable=not sys.stderr.isatty(), leave=False)
        for start in range(0, count, batch_size):
            samples = [dataset[i] for i in range(start, min(start + batch_size, count))]
            for sample, prediction in zip(samples, _predict(pipeline, samples, name), strict=True):
                meter.add(sample, prediction)
                if len(shown) < num_examples:
                    shown.append((sample, prediction))
            bar.update(len(samples))
        bar.close()
        metrics[name] = meter.result()
        seconds[name] = (time.perf_counter() - started) / count if count else math.nan
        examples[name] = shown
    return Evaluation(metrics, seconds, examples)


def _predict(pipeline: Pipeline, samples: Sequence[Sample], name: str) -> list[Prediction]:
    predictions = pipeline.predict([s.image for s in samples], [s.path for s in samples])
    return [prediction[name] for prediction in predictions]
