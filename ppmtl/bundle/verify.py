"""Compares an exported bundle with the training graph: raw arrays number for number, and each task's metric.

Training graph and bundle (in float32, in bfloat16) run side by side through the one pipeline of evaluation, which takes them
for several tasks that want to see the same view: every image is read once and shown once to each network.
"""

from __future__ import annotations

import math
from collections import defaultdict
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
from ppmtl.structures import Size
from ppmtl.tasks.base import Metrics, Task

# How far a task's primary metric may move: a near tie may fall the other way on few images; in bfloat16 numbers differ by
# some 7e-3 and only the metric can judge. How far raw arrays may differ is said by the task (``Task.tolerances``). Measured on
# the demo model: 2e-6 for probabilities, 7e-7 for scores, 3e-4 px for boxes of up to 700 px, no change of any metric; the
# networks of the paper are ten times deeper.
METRIC_TOLERANCES = {"metric": 0.002, "bf16_metric": 0.005}
REFERENCE, FLOAT32, BFLOAT16 = "training graph", "float32", "bfloat16"
_NOISE_SIZE: Size = (360, 640)


@dataclass(frozen=True)
class Images:
    """What one task is compared on: the first ``count`` of a labelled validation set, or random images (no reader)."""

    origin: str
    count: int
    reader: Reader | None = None


@dataclass
class Difference:
    """Of one output over all images: the largest absolute one, and the output's largest absolute value.

    ``allowed`` is None where differences are not judged.
    """

    absolute: float = 0.0
    scale: float = 0.0
    allowed: float | None = None

    def add(self, where: str, wanted: np.ndarray, got: np.ndarray) -> None:
        """Takes one batch; raises ValueError if the shapes differ."""
        if wanted.shape != got.shape:
            raise ValueError(
                f"{where}: the training graph gives shape {wanted.shape}, the exported one {got.shape}; the model's "
                "code does something else while it is traced. Nothing was exported"
            )
        apart = np.abs(got.astype(np.float64) - wanted)
        # NaN must not pass as "no larger than": it counts as infinitely far off
        self.absolute = max(self.absolute, float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)))
        self.scale = max(self.scale, float(np.abs(wanted).max(initial=0.0)))


@dataclass(frozen=True)
class TaskCheck:
    """One task's comparison of one way to run the bundle.

    Attributes:
        task: its name.
        images: how many, and where from.
        outputs: {raw array: difference}.
        primary: the metric that is judged; None without labels.
        allowed: by how much it may change.
        metrics: {name: (training graph, bundle)}.
        problems: what is beyond tolerance, in words; empty = passed.
    """

    task: str
    images: Images
    outputs: dict[str, Difference]
    primary: str | None
    allowed: float
    metrics: dict[str, tuple[float, float]]
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The check for JSON."""
        return {
            "task": self.task,
            "pictures": self.images.count,
            "from": self.images.origin,
            "outputs": {
                name: {
                    "largest_difference": d.absolute,
                    "relative_to_largest_value": d.absolute / max(d.scale, 1e-30),
                    "allowed": d.allowed,
                }
                for name, d in self.outputs.items()
            },
            "primary": self.primary,
            "primary_may_change_by": self.allowed,
            "metrics": {
                name: {"training_graph": before, "bundle": after, "change": after - before}
                for name, (before, after) in self.metrics.items()
            },
            "problems": self.problems,
        }


def check_bundle(
    folder: Path,
    model: MultiTaskModel,
    images: Mapping[str, Images],
    *,
    batch: int,
    tolerances: Mapping[str, float],
    bf16: bool = False,
) -> dict[str, list[TaskCheck]]:
    """{how the bundle ran: one check per task}.

    Args:
        folder: the bundle.
        model: the training graph.
        images: {task: what it is measured on}.
        batch: inputs that run together.
        tolerances: {raw array, "metric" or "bf16_metric": largest difference}; the others are the tasks' and
            ``METRIC_TOLERANCES``.
        bf16: measure it in bfloat16 too.
    """
    bundle = read_bundle(folder)
    device = "gpu" if paddle.device.get_device().startswith("gpu") else "cpu"
    backends: dict[str, Backend] = {REFERENCE: PaddleBackend(model), FLOAT32: open_backend(bundle, device=device)}
    if bf16:
        backends[BFLOAT16] = open_backend(bundle, device=device, bf16=True)
    runs: dict[str, list[TaskCheck]] = defaultdict(list)
    for name, task in bundle.tasks.items():
        for how, check in check_task(task, images[name], backends, batch=batch, tolerances=tolerances).items():
            runs[how].append(check)
    return dict(runs)


def check_task(
    task: Task[Any],
    images: Images,
    backends: Mapping[str, Backend],
    *,
    batch: int,
    tolerances: Mapping[str, float],
) -> dict[str, TaskCheck]:
    """{how: check} for every backend but the first, which is the ``REFERENCE``; the other arguments as above.

    Raises:
        ValueError: if an array has another shape.
    """
    both = _SideBySide(task.name, backends)
    same = dict.fromkeys(backends, task)
    metrics: dict[str, Metrics] = {}
    if images.reader is None:
        shown = [_noise(index) for index in range(images.count)]
        Pipeline(same, both, batch_size=batch).predict(shown, [f"random image {i}" for i in range(images.count)])
    else:
        sets = {task.name: EvalSet(images.reader, tuple(same))}
        metrics = evaluate(same, sets, both, batch_size=batch, limit=images.count).metrics
    return {
        how: _judge(task, images, how, outputs, metrics, {**METRIC_TOLERANCES, **task.tolerances, **tolerances})
        for how, outputs in both.outputs.items()
    }


class _SideBySide:
    """A backend that asks every network for the same task and notes how far each is from the first."""

    def __init__(self, task: str, backends: Mapping[str, Backend]) -> None:
        self._task, self._backends = task, backends
        self.outputs: dict[str, dict[str, Difference]] = {
            how: defaultdict(Difference) for how in backends if how != REFERENCE
        }

    def __call__(self, images: np.ndarray, ways: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        raw = {how: self._backends[how](images, (self._task,))[self._task] for how in ways}
        for how, outputs in self.outputs.items():
            for name, wanted in raw[REFERENCE].items():
                outputs[name].add(f"{self._task}.{name}", wanted, raw[how][name])
        return raw


def _judge(
    task: Task[Any],
    images: Images,
    how: str,
    outputs: dict[str, Difference],
    metrics: Mapping[str, Metrics],
    limits: Mapping[str, float],
) -> TaskCheck:
    problems = []
    if how != BFLOAT16:
        for name, difference in outputs.items():
            allowed = difference.allowed = limits[name]
            if not difference.absolute <= allowed:
                problems.append(f"{task.name}.{name} differs by {difference.absolute:.2g}, allowed {allowed:.2g}")
    limit = limits["bf16_metric" if how == BFLOAT16 else "metric"]
    if not metrics:
        return TaskCheck(task.name, images, dict(outputs), None, limit, {}, problems)
    primary, wanted, got = metrics[how].primary, metrics[REFERENCE].values, metrics[how].values
    before, after = wanted[primary], got[primary]
    # A metric that is undefined in both (no such class in the images) did not move
    if not (math.isnan(before) and math.isnan(after)) and not abs(after - before) <= limit:
        problems.append(f"{task.name}.{primary} changes by {abs(after - before):.4f}, allowed {limit:.4f}")
    both = {name: (wanted[name], got[name]) for name in wanted}
    return TaskCheck(task.name, images, dict(outputs), primary, limit, both, problems)


def _noise(index: int) -> np.ndarray:
    """A smooth random image."""
    coarse = np.random.default_rng(index).integers(0, 256, (12, 20, 3), np.uint8)
    return cv2.resize(coarse, _NOISE_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
