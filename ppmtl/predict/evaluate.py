"""Measures any backend on labelled data sets."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from ppmtl.data.reader import Reader
from ppmtl.predict.extremes import Extremes, ExtremesMeter, extremes
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.predict.processes import Processes
from ppmtl.predict.result_files import ResultFiles
from ppmtl.predict.stored import StoredPredictions, StoredSet
from ppmtl.structures import Sample
from ppmtl.tasks.base import Meter, Metrics, Task
from ppmtl.tasks.views import Slicing


class EvaluationError(ValueError):
    """An evaluation failed because of its data or a prediction; the message names data set, task and file."""


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
        extremes: {task: its best and worst images}, where asked for.
        unlabelled: {task: images of its data set without a label for it, which were not measured}; no task that has none.
    """

    metrics: dict[str, Metrics]
    seconds: dict[str, float]
    examples: dict[str, list[Example]]
    extremes: dict[str, Extremes] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)

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
    backend: Backend | StoredPredictions,
    *,
    augment: bool = False,
    slicing: Slicing | None = None,
    batch_size: int = 1,
    num_examples: int = 0,
    num_extremes: int = 0,
    draw_threshold: float = 0.5,
    limit: int | None = None,
    results: ResultFiles | None = None,
    processes: Processes = Processes(),  # noqa: B008  (frozen)
) -> Evaluation:
    """The metrics of every task on its data set; the same on every process, and bit for bit those of one process.

    Args:
        backend: what runs the network, or predictions made before, to which no option but ``limit`` and the drawing ones apply.
        augment: test-time augmentation.
        slicing: show large images in tiles too, to the tasks that can put them together.
        batch_size: inputs of one size that run together.
        num_examples: images per data set to hand back with their predictions, for looking at.
        num_extremes: best and worst images per task to draw.
        draw_threshold: parts that score below it are not drawn there.
        limit: only the first so many images of each set; None = all.
        results: takes every prediction.
        processes: those that share the images. All of them have to call this function, with the same weights.

    Raises:
        EvaluationError: on every process, if one of them met a file or a prediction that cannot be measured, or no image of a
            data set has a label for one of its tasks.
    """
    metrics: dict[str, Metrics] = {}
    unlabelled: dict[str, int] = {}
    seconds: dict[str, float] = {}
    examples: dict[str, list[Example]] = {}
    ranked: dict[str, Extremes] = {}
    for name, of_set in sets.items():
        chosen = {task: tasks[task] for task in of_set.tasks}
        pipeline = (
            backend.of(of_set.reader, chosen)
            if isinstance(backend, StoredPredictions)
            else Pipeline(chosen, backend, augment=augment, batch_size=batch_size, slicing=slicing)
        )
        keep = results.of(of_set.reader) if results else None
        images = range(len(of_set.reader))[:limit]
        # Sharded by the batches that run together, so that results do not depend on the number of processes.
        batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        started = time.perf_counter()
        scored = {
            key: ExtremesMeter(task, num_extremes, draw_threshold) for key, task in chosen.items() if num_extremes
        }
        with _together(processes):
            meters, shown = _measure(name, pipeline, of_set.reader, batches, num_examples, scored, keep, processes)
        for task, (meter, measured) in meters.items():
            metrics[task], count = _merged(f"evaluation of {name}, task '{task}'", meter, measured, processes)
            if images and not count and limit is None:
                raise EvaluationError(
                    f"eval.datasets.{name}: none of its {len(images)} images has a label for task '{task}'; check its paths, "
                    "or take the task out of its tasks"
                )
            if count < len(images):
                unlabelled[task] = len(images) - count
        for task, of_task in scored.items():
            ranked[task] = extremes(itertools.chain(*processes.all_gather(of_task.kept)), num_extremes)
        elapsed = (time.perf_counter() - started) / len(images) if images else math.nan
        seconds |= dict.fromkeys(chosen, processes.all_gather(elapsed)[0])
        # An example is with one of the processes; one at a time, since images are large.
        examples[name] = [
            next(found for found in processes.all_gather(shown.get(i)) if found is not None)
            for i in images[:num_examples]
        ]
    return Evaluation(metrics, seconds, examples, ranked, unlabelled)


def _measure(
    name: str,
    pipeline: Pipeline | StoredSet,
    reader: Reader,
    batches: list[range],
    num_examples: int,
    scored: Mapping[str, ExtremesMeter],
    keep: Callable[[int, Sample, Mapping[str, Any]], None] | None,
    processes: Processes,
) -> tuple[dict[str, tuple[Meter[Any], list[int]]], dict[int, Example]]:
    """{task: (meter, positions measured)} of this process's images, and {position: example} of those to be shown."""
    meters: dict[str, tuple[Meter[Any], list[int]]] = {
        key: (task.new_meter(), []) for key, task in pipeline.tasks.items()
    }
    shown: dict[int, Example] = {}
    every_task = f"evaluation of {name}, task{'s' * (len(meters) > 1)} {', '.join(meters)}"
    hidden = processes.rank != 0 or not sys.stderr.isatty()
    total = sum(map(len, batches))
    with tqdm(total=total, desc=f"evaluate {name}", unit="img", disable=hidden, leave=False) as bar:
        for batch in batches[processes.rank :: processes.count]:
            with _named(every_task):
                samples = [reader[i] for i in batch]
            with _named(every_task, ", ".join(sample.path for sample in samples)):
                predictions = pipeline.predict([s.image for s in samples], [s.path for s in samples])
            for index, sample, prediction in zip(batch, samples, predictions, strict=True):
                for task, (meter, measured) in meters.items():
                    # Not the key: the check of a bundle measures one task under several
                    if pipeline.tasks[task].name not in sample.labels:
                        continue
                    with _named(f"evaluation of {name}, task '{task}'", sample.path):
                        meter.add(sample, prediction[task])
                        if task in scored:
                            scored[task].add(sample, prediction[task], index)
                    measured.append(index)
                if keep is not None:
                    keep(index, sample, prediction)
                if index < num_examples:
                    shown[index] = (sample, prediction)
            bar.update(len(batch) * processes.count)
    return meters, shown


def _merged(what: str, meter: Meter[Any], measured: list[int], processes: Processes) -> tuple[Metrics, int]:
    """The metrics of all processes' images, and how many these are; rank 0 computes them for all.

    ``measured`` are the positions in the data set of what this process's meter holds; ``what`` is said in an error.
    """
    found = processes.all_gather((meter.state(), measured)) if processes.count > 1 else []
    result = None
    with _together(processes), _named(what):
        if processes.count == 1:
            result = meter.result(), len(measured)
        elif processes.rank == 0:
            order = [position for _, positions in found for position in positions]
            meter.merge([state for state, _ in found], np.argsort(order))
            result = meter.result(), len(order)
    first: tuple[Metrics, int] = processes.all_gather(result)[0]
    return first


@contextmanager
def _named(what: str, files: str = "") -> Iterator[None]:
    """Says what was being evaluated when data or a prediction turned out to be wrong."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        text = str(error).removeprefix(f"{files}: ")  # many errors name their file themselves
        raise EvaluationError(": ".join(filter(None, (what, files, text)))) from error


@contextmanager
def _together(processes: Processes) -> Iterator[None]:
    """Raises an EvaluationError of one process on all of them; the others would wait for it for ever."""
    failure: EvaluationError | None = None
    try:
        yield
    except EvaluationError as error:
        failure = error
    for text in processes.all_gather(None if failure is None else str(failure)):
        if text is not None:
            raise EvaluationError(text) from failure
