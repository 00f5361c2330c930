"""Measures any backend on labelled data sets."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ppmtl.data.reader import Reader
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.predict.processes import Processes
from ppmtl.structures import Sample
from ppmtl.tasks.base import Meter, Metrics, Task
from ppmtl.tasks.views import Slicing


@dataclass(frozen=True)
class EvalSet:
    """A labelled data set and the tasks that are measured on it; every image is read once for all of them."""

    reader: Reader
    tasks: tuple[str, ...]


Example = tuple[Sample, dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured.

    Attributes:
        metrics: {task: metrics}.
        seconds: {task: seconds per image of its data set}, reading and post-processing included.
        examples: {data set: [(sample, {task: prediction})]} of the first few images.
    """

    metrics: dict[str, Metrics]
    seconds: dict[str, float]
    examples: dict[str, list[Example]]

    @property
    def score(self) -> float:
        """The challenge's score, the mean of the tasks' primary metrics; NaN as long as one of them is."""
        return float(np.mean([m.values[m.primary] for m in self.metrics.values()])) if self.metrics else float("nan")

    def value(self, name: str) -> float:
        """The value called "score" or "task.metric"; ValueError listing those that there are if there is none."""
        if name == "score":
            return self.score
        task, _, metric = name.partition(".")
        if task not in self.metrics or metric not in self.metrics[task].values:
            known = ["score"] + [f"{t}.{k}" for t, m in self.metrics.items() for k in m.values]
            raise ValueError(f"train.best_metric: got {name!r}, the evaluation measures {', '.join(known)}")
        return self.metrics[task].values[metric]


def evaluate(
    tasks: Mapping[str, Task[Any]],
    sets: Mapping[str, EvalSet],
    backend: Backend,
    *,
    augment: bool | Mapping[str, bool] = False,
    slicing: Slicing | None = None,
    batch_size: int = 1,
    num_examples: int = 0,
    limit: int | None = None,
    processes: Processes = Processes(),  # noqa: B008  (frozen)
) -> Evaluation:
    """The metrics of every task on its data set; the same on every process, and bit for bit those of one process.

    Args:
        backend: what runs the network.
        augment: test-time augmentation, for all tasks or by task.
        slicing: show large images in tiles too, to the tasks that can put them together.
        batch_size: inputs of one size that run together.
        num_examples: images per data set to hand back with their predictions, for looking at.
        limit: only the first so many images of each set; None = all.
        processes: those that share the images. All of them have to call this function, with the same weights.
    """
    metrics: dict[str, Metrics] = {}
    seconds: dict[str, float] = {}
    examples: dict[str, list[Example]] = {}
    for name, of_set in sets.items():
        on = [task for task in of_set.tasks if (augment if isinstance(augment, bool) else augment.get(task, False))]
        chosen = {task: tasks[task] for task in of_set.tasks}
        pipeline = Pipeline(chosen, backend, augment=on, batch_size=batch_size, slicing=slicing)
        count = len(of_set.reader) if limit is None else min(limit, len(of_set.reader))
        started = time.perf_counter()
        meters, shown = _measure(name, pipeline, of_set.reader, range(count), num_examples, processes)
        for task, meter in meters.items():
            metrics[task] = _merged(meter, range(count), batch_size, processes)
        elapsed = (time.perf_counter() - started) / count if count else math.nan
        seconds |= dict.fromkeys(chosen, processes.all_gather(elapsed)[0])
        examples[name] = [_from_its_owner(shown.get(i), processes) for i in range(min(num_examples, count))]
    return Evaluation(metrics, seconds, examples)


def _measure(
    name: str, pipeline: Pipeline, reader: Reader, images: range, num_examples: int, processes: Processes
) -> tuple[dict[str, Meter[Any]], dict[int, Example]]:
    """{task: meter} of this process's images, and {position: example} of those that are to be shown."""
    meters: dict[str, Meter[Any]] = {task: pipeline.tasks[task].new_meter() for task in pipeline.tasks}
    shown: dict[int, Example] = {}
    hidden = processes.rank != 0 or not sys.stderr.isatty()
    with tqdm(total=len(images), desc=f"evaluate {name}", unit="img", disable=hidden, leave=False) as bar:
        for batch in _batches(images, pipeline.batch_size)[processes.rank :: processes.count]:
            samples = [reader[i] for i in batch]
            predictions = pipeline.predict([s.image for s in samples], [s.path for s in samples])
            for index, sample, prediction in zip(batch, samples, predictions, strict=True):
                for task, meter in meters.items():
                    meter.add(sample, prediction[task])
                if index < num_examples:
                    shown[index] = (sample, prediction)
            bar.update(len(batch) * processes.count)
    return meters, shown


def _batches(images: range, batch_size: int) -> list[range]:
    """The images that run together. Sharded by batch, so that results do not depend on the number of processes."""
    return [images[start : start + batch_size] for start in range(0, len(images), batch_size)]


def _merged(meter: Meter[Any], images: range, batch_size: int, processes: Processes) -> Metrics:
    """The metrics of all processes' images; rank 0 computes them for all."""
    if processes.count == 1:
        return meter.result()
    states = processes.all_gather(meter.state())
    metrics = None
    if processes.rank == 0:
        batches = _batches(images, batch_size)
        order = [i for rank in range(processes.count) for batch in batches[rank :: processes.count] for i in batch]
        meter.merge(states, np.argsort(order))
        metrics = meter.result()
    first: Metrics = processes.all_gather(metrics)[0]
    return first


def _from_its_owner(example: Example | None, processes: Processes) -> Example:
    """An example that one of the processes has; one at a time, since images are large."""
    return next(found for found in processes.all_gather(example) if found is not None)
