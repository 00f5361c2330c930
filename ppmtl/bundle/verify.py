"""Compares an exported bundle with the training graph: raw arrays number for number, and each task's metric.

Training graph and bundle (in float32, in bfloat16) run side by side through the one pipeline of evaluation, which takes them
for several tasks that want to see the same view: every image is read once and shown once to each network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
Check = dict[str, Any]  # one task in one number format, as export_report.json shows it


@dataclass(frozen=True)
class Images:
    """What one task is compared on: the first ``count`` of a labelled validation set, or random images (no reader)."""

    origin: str
    count: int
    reader: Reader | None = None


def check_bundle(
    folder: Path,
    model: MultiTaskModel,
    images: Mapping[str, Images],
    *,
    batch: int,
    tolerances: Mapping[str, float],
    bf16: bool = False,
) -> dict[str, list[Check]]:
    """{"float32" or "bfloat16": one check per task}.

    Args:
        folder, model: the bundle and the training graph.
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
    found = [
        check_task(task, images[name], backends, batch=batch, tolerances=tolerances)
        for name, task in bundle.tasks.items()
    ]
    return {how: [checks[how] for checks in found] for how in found[0]}


def check_task(
    task: Task[Any], images: Images, backends: Mapping[str, Backend], *, batch: int, tolerances: Mapping[str, float]
) -> dict[str, Check]:
    """{how: check} for every backend but the one called ``REFERENCE``; the other arguments as above.

    "problems" of a check is what is beyond tolerance, in words; its "primary" is None without labels.
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
    limits = {**METRIC_TOLERANCES, **task.tolerances, **tolerances}
    about = {"pictures": images.count, "from": images.origin, "task": task.name}
    return {how: about | _judge(task.name, how, both, metrics, limits) for how in both.largest}


class _SideBySide:
    """A backend that asks every network for the same task and notes how far each is from the reference."""

    def __init__(self, task: str, backends: Mapping[str, Backend]) -> None:
        self._task, self._backends = task, backends
        self.largest: dict[str, dict[str, float]] = {how: {} for how in backends if how != REFERENCE}
        self.scale: dict[str, float] = {}

    def __call__(self, images: np.ndarray, ways: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        raw = {how: self._backends[how](images, (self._task,))[self._task] for how in ways}
        for name, wanted in raw[REFERENCE].items():
            self.scale[name] = max(self.scale.get(name, 0.0), float(np.abs(wanted).max(initial=0.0)))
            for how, largest in self.largest.items():
                difference = _largest_difference(f"{self._task}.{name}", wanted, raw[how][name])
                largest[name] = max(largest.get(name, 0.0), difference)
        return raw


def _largest_difference(where: str, wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.shape != got.shape:
        raise ValueError(
            f"{where}: the training graph gives shape {wanted.shape}, the exported one {got.shape}; the model's "
            "code does something else while it is traced. Nothing was exported"
        )
    # NaN must not pass as "no larger than": it counts as infinitely far off
    return float(np.nan_to_num(np.abs(got.astype(np.float64) - wanted), nan=np.inf).max(initial=0.0))


def _judge(
    task: str, how: str, found: _SideBySide, metrics: Mapping[str, Metrics], limits: Mapping[str, float]
) -> Check:
    low = how == BFLOAT16  # 8 bits of mantissa: only the metric can judge
    outputs, changes, problems = {}, {}, []
    for name, largest in found.largest[how].items():
        outputs[name] = {
            "largest_difference": largest,
            "relative_to_largest_value": largest / max(found.scale[name], 1e-30),
            "allowed": None if low else limits[name],
        }
        if not low and not largest <= limits[name]:
            problems.append(f"{task}.{name} differs by {largest:.2g}, allowed {limits[name]:.2g}")
    primary, limit = None, limits["bf16_metric" if low else "metric"]
    if metrics:
        primary, before, after = metrics[how].primary, metrics[REFERENCE].values, metrics[how].values
        for name, value in before.items():
            changes[name] = {"training_graph": value, "bundle": after[name], "change": after[name] - value}
        # A metric that is undefined in both (no such class in the images) did not move
        undefined, change = math.isnan(before[primary]) and math.isnan(after[primary]), abs(changes[primary]["change"])
        if not undefined and not change <= limit:
            problems.append(f"{task}.{primary} changes by {change:.4f}, allowed {limit:.4f}")
    return {
        "outputs": outputs,
        "primary": primary,
        "primary_may_change_by": limit,
        "metrics": changes,
        "problems": problems,
    }


def _noise(index: int) -> np.ndarray:
    """A smooth random image."""
    coarse = np.random.default_rng(index).integers(0, 256, (12, 20, 3), np.uint8)
    return cv2.resize(coarse, _NOISE_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
