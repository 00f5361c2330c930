"""Compares an exported bundle with the training graph: raw arrays number for number, and each task's metric.

Both run through the one pipeline of evaluation. The training graph goes first and its raw arrays are kept on disk, so
that each network sees each picture once, however often the bundle is measured (float32, bfloat16).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.data.reader import Reader
from ppmtl.models.backend import PaddleBackend
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.predict.evaluate import EvalSet, evaluate
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.structures import Sample, Size
from ppmtl.tasks.base import Task

# How far a task's primary metric may move: a near tie may fall the other way on few images; in bfloat16 numbers differ by
# some 7e-3 and only the metric can judge. How far raw arrays may differ is said by the task (``Task.tolerances``). Measured on
# the demo model: 2e-6 for probabilities, 7e-7 for scores, 3e-4 px for boxes of up to 700 px, no change of any metric; the
# networks of the paper are ten times deeper.
METRIC, BF16_METRIC = "metric", "bf16_metric"
TOLERANCES: dict[str, float] = {METRIC: 0.002, BF16_METRIC: 0.005}
OTHER_OUTPUT = 1e-4  # of an output that its task names no tolerance for, relative to its largest value
_NOISE_SIZE: Size = (360, 640)


@dataclass(frozen=True)
class Pictures:
    """What one task is compared on: a labelled validation set, or random images without labels."""

    origin: str
    count: int
    dataset: Reader | _Noise
    labelled: bool


@dataclass(frozen=True)
class Difference:
    """Of one output over all pictures: the largest absolute one, and that relative to the output's largest value."""

    absolute: float
    relative: float
    allowed: float | None


@dataclass(frozen=True)
class TaskCheck:
    """One task's comparison.

    Attributes:
        task: its name.
        pictures: how many, and where from.
        outputs: {raw array: difference}.
        primary: the metric that is judged; None without labels.
        allowed: by how much it may change.
        metrics: {name: (training graph, bundle)}.
        problems: what is beyond tolerance, in words; empty = passed.
    """

    task: str
    pictures: Pictures
    outputs: dict[str, Difference]
    primary: str | None
    allowed: float
    metrics: dict[str, tuple[float, float]]
    problems: list[str] = field(default_factory=list)


class _Noise:
    """Smooth random images without labels, for a machine that has no validation data."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        coarse = np.random.default_rng(index).integers(0, 256, (12, 20, 3), np.uint8)
        return Sample(f"random image {index}", cv2.resize(coarse, _NOISE_SIZE[::-1], interpolation=cv2.INTER_CUBIC))


def labelled_pictures(dataset: Reader, origin: str, count: int) -> Pictures:
    """Returns the first ``count`` pictures of a validation set."""
    return Pictures(origin, min(count, len(dataset)), dataset, labelled=True)


def random_pictures(count: int) -> Pictures:
    """Returns ``count`` random images: they test the numbers, not the metric."""
    return Pictures("random images, since the validation data are not there", count, _Noise(count), labelled=False)


class _Recorder:
    """A backend that keeps everything it returned, one file per call."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend, self._folder, self._calls = backend, folder, 0

    def __call__(self, images: np.ndarray, names: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        raw = self._backend(images, names)
        ((_, arrays),) = raw.items()
        save_npz: Any = np.savez  # its annotations take any keyword for the flag allow_pickle
        save_npz(self._folder / f"{self._calls}.npz", **arrays)
        self._calls += 1
        return raw


class _Comparer:
    """A backend that compares each of its answers with the recorded one of the same call."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend, self._folder, self._calls = backend, folder, 0
        self.largest: dict[str, float] = {}
        self.scale: dict[str, float] = {}

    def __call__(self, images: np.ndarray, names: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        raw = self._backend(images, names)
        ((task, arrays),) = raw.items()
        with np.load(self._folder / f"{self._calls}.npz") as recorded:
            for name in recorded.files:
                self._add(f"{task}.{name}", name, recorded[name], arrays[name])
        self._calls += 1
        return raw

    def _add(self, where: str, name: str, wanted: np.ndarray, got: np.ndarray) -> None:
        if wanted.shape != got.shape:
            raise ValueError(
                f"{where}: the training graph gives shape {wanted.shape}, the exported one {got.shape}; the model's "
                "code does something else while it is traced. Nothing was exported"
            )
        difference = np.abs(got.astype(np.float64) - wanted) if wanted.size else np.zeros(1)
        # NaN must not pass as "no larger than": it counts as infinitely far off
        self.largest[name] = max(self.largest.get(name, 0.0), float(np.nan_to_num(difference, nan=np.inf).max()))
        self.scale[name] = max(self.scale.get(name, 0.0), float(np.abs(wanted).max(initial=0.0)))


def _measure(task: Task, pictures: Pictures, backend: Backend, batch: int) -> tuple[str | None, dict[str, float]]:
    """Returns the primary metric's name and all metrics; (None, {}) for pictures without labels."""
    if not isinstance(pictures.dataset, _Noise):
        result = evaluate(
            {task.name: task},
            {task.name: EvalSet(pictures.dataset, (task.name,))},
            backend,
            batch_size=batch,
            limit=pictures.count,
        )
        return result.metrics[task.name].primary, result.metrics[task.name].values
    pipeline = Pipeline({task.name: task}, backend, batch_size=batch)
    samples = [pictures.dataset[i] for i in range(pictures.count)]
    pipeline.predict([sample.image for sample in samples], [sample.path for sample in samples])
    return None, {}


Reference = dict[str, tuple[str | None, dict[str, float]]]


def record(
    backend: Backend, tasks: Mapping[str, Task], pictures: Mapping[str, Pictures], folder: Path, batch: int
) -> Reference:
    """Returns {task: (primary metric, metrics)} of the training graph, and keeps its raw arrays in ``folder``.

    Args:
        backend: the training graph.
        tasks: {name: task}.
        pictures: {task: what it is measured on}.
        folder: made here; as large as the raw arrays of all pictures.
        batch: inputs that run together.
    """
    found: Reference = {}
    for name, task in tasks.items():
        (folder / name).mkdir(parents=True)
        found[name] = _measure(task, pictures[name], _Recorder(backend, folder / name), batch)
    return found


def compare(
    backend: Backend,
    tasks: Mapping[str, Task],
    pictures: Mapping[str, Pictures],
    folder: Path,
    batch: int,
    reference: Reference,
    tolerances: Mapping[str, float],
    *,
    bf16: bool = False,
) -> list[TaskCheck]:
    """Returns one check per task.

    Args:
        backend: the bundle.
        tasks, pictures, folder, batch: as for :func:`record`.
        reference: what it returned.
        tolerances: see ``TOLERANCES``.
        bf16: the backend computes in bfloat16: only metrics are judged.

    Raises:
        ValueError: if an array of the bundle has another shape.
    """
    return [
        _check(task, pictures[name], _Comparer(backend, folder / name), batch, reference[name], tolerances, bf16)
        for name, task in tasks.items()
    ]


def _check(
    task: Task,
    pictures: Pictures,
    backend: _Comparer,
    batch: int,
    reference: tuple[str | None, dict[str, float]],
    tolerances: Mapping[str, float],
    bf16: bool,
) -> TaskCheck:
    _, got = _measure(task, pictures, backend, batch)
    primary, wanted = reference
    outputs, problems = {}, []
    for name, absolute in backend.largest.items():
        allowed = None if bf16 else {**task.tolerances, **tolerances}.get(name, OTHER_OUTPUT * backend.scale[name])
        outputs[name] = Difference(absolute, absolute / max(backend.scale[name], 1e-30), allowed)
        if allowed is not None and not absolute <= allowed:
            problems.append(f"{task.name}.{name} differs by {absolute:.2g}, allowed {allowed:.2g}")
    metrics = {name: (wanted[name], got[name]) for name in wanted}
    limit = tolerances["bf16_metric" if bf16 else "metric"]
    if primary is not None and not _change(*metrics[primary]) <= limit:
        problems.append(f"{task.name}.{primary} changes by {_change(*metrics[primary]):.4f}, allowed {limit:.4f}")
    return TaskCheck(task.name, pictures, outputs, primary, limit, metrics, problems)


def _change(before: float, after: float) -> float:
    """Returns by how much a metric moved; a metric that is undefined in both (no such class in the pictures) did not."""
    return 0.0 if math.isnan(before) and math.isnan(after) else abs(after - before)


def check_bundle(
    folder: Path,
    model: MultiTaskModel,
    pictures: Mapping[str, Pictures],
    *,
    batch: int,
    tolerances: Mapping[str, float],
    bf16: bool = False,
) -> dict[str, list[TaskCheck]]:
    """Returns {how the bundle ran: one check per task}.

    Args:
        folder: the bundle.
        model: the training graph.
        pictures: {task: what it is measured on}.
        batch: inputs that run together.
        tolerances: see ``TOLERANCES``.
        bf16: measure it in bfloat16 too.
    """
    bundle = read_bundle(folder)
    device = "gpu" if paddle.device.get_device().startswith("gpu") else "cpu"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export_check_") as scratch:
        kept = Path(scratch)
        reference = record(PaddleBackend(model), bundle.tasks, pictures, kept, batch)
        runs = {}
        for how in ("float32", "bfloat16")[: 1 + bf16]:
            low = how == "bfloat16"
            backend = open_backend(bundle, device=device, bf16=low)
            runs[how] = compare(backend, bundle.tasks, pictures, kept, batch, reference, tolerances, bf16=low)
    return runs


def as_dict(check: TaskCheck) -> dict[str, Any]:
    """Returns a check for JSON."""
    return {
        "task": check.task,
        "pictures": check.pictures.count,
        "from": check.pictures.origin,
        "outputs": {
            name: {"largest_difference": d.absolute, "relative_to_largest_value": d.relative, "allowed": d.allowed}
            for name, d in check.outputs.items()
        },
        "primary": check.primary,
        "primary_may_change_by": check.allowed,
        "metrics": {
            name: {"training_graph": before, "bundle": after, "change": after - before}
            for name, (before, after) in check.metrics.items()
        },
        "problems": check.problems,
    }
