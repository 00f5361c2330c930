"""Measures any backend on labelled data sets."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm import tqdm

from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.predict.processes import Processes
from ppmtl.structures import Prediction, Sample
from ppmtl.tasks.base import Meter, Metrics, Slicing, Task


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
    slicing: Slicing | None = None,
    batch_size: int = 1,
    num_examples: int = 0,
    limit: int | None = None,
    processes: Processes = Processes(),  # noqa: B008  (frozen)
) -> Evaluation:
    """Returns the metrics of every task on its own data set; the same on every process, and bit for bit those of one.

    Args:
        tasks: {name: task}.
        datasets: {task name: labelled data set}.
        backend: what runs the network.
        augment: test-time augmentation, for all tasks or by task.
        slicing: show large pictures in tiles too, to the tasks that can put them together.
        batch_size: inputs of one size that run together.
        num_examples: pictures per task to hand back with their predictions, for looking at.
        limit: only the first so many pictures of each set; None = all.
        processes: those that share the pictures. All of them have to call this function, with the same weights.
    """
    metrics, seconds, examples = {}, {}, {}
    for name, dataset in datasets.items():
        on = augment if isinstance(augment, bool) else augment.get(name, False)
        pipeline = Pipeline({name: tasks[name]}, backend, augment=on, batch_size=batch_size, slicing=slicing)
        count = len(dataset) if limit is None else min(limit, len(dataset))
        started = time.perf_counter()
        meter, shown = _measure(pipeline, dataset, range(count), num_examples, processes)
        metrics[name] = _merged(meter, range(count), batch_size, processes)
        elapsed = (time.perf_counter() - started) / count if count else math.nan
        seconds[name] = processes.exchange(elapsed)[0]
        examples[name] = [_from_its_owner(shown.get(i), processes) for i in range(min(num_examples, count))]
    return Evaluation(metrics, seconds, examples)


def _measure(
    pipeline: Pipeline, dataset: Dataset, pictures: range, num_examples: int, processes: Processes
) -> tuple[Meter, dict[int, tuple[Sample, Prediction]]]:
    """Returns a meter of this process's pictures, and {position: example} of those that are to be shown."""
    ((name, task),) = pipeline.tasks.items()
    meter, shown = task.new_meter(), {}
    hidden = processes.rank != 0 or not sys.stderr.isatty()
    with tqdm(total=len(pictures), desc=f"evaluate {name}", unit="img", disable=hidden, leave=False) as bar:
        for batch in _batches(pictures, pipeline.batch_size)[processes.rank :: processes.count]:
            samples = [dataset[i] for i in batch]
            predictions = pipeline.predict([s.image for s in samples], [s.path for s in samples])
            for index, sample, prediction in zip(batch, samples, predictions, strict=True):
                meter.add(sample, prediction[name])
                if index < num_examples:
                    shown[index] = (sample, prediction[name])
            bar.update(len(batch) * processes.count)
    return meter, shown


def _batches(pictures: range, batch_size: int) -> list[range]:
    """Returns the pictures that run together. Whole batches are dealt out: who computes one does not change its bits."""
    return [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]


def _merged(meter: Meter, pictures: range, batch_size: int, processes: Processes) -> Metrics:
    """Returns the metrics of all processes' pictures; the first process computes them for all."""
    if processes.count == 1:
        return meter.result()
    states = processes.exchange(meter.state())
    metrics = None
    if processes.rank == 0:
        batches = _batches(pictures, batch_size)
        dealt = [i for rank in range(processes.count) for batch in batches[rank :: processes.count] for i in batch]
        meter.merge(states, np.argsort(dealt))
        metrics = meter.result()
    first: Metrics = processes.exchange(metrics)[0]
    return first


def _from_its_owner(example: tuple[Sample, Prediction] | None, processes: Processes) -> tuple[Sample, Prediction]:
    """Returns an example that one of the processes has; one at a time, since pictures are large."""
    return next(found for found in processes.exchange(example) if found is not None)
