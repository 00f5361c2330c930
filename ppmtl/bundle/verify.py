"""Compares an exported bundle with the training graph: raw arrays number for number, and each task's metric.

Training graph and bundle (in float32, in bfloat16) run side by side through the one pipeline of evaluation, which takes them
for several tasks that want to see the same view: every image is read once and shown once to each network. What was found is
written as JSON for machines and Markdown for people.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from ppmtl import tables
from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.settings import BundleSettings
from ppmtl.data.reader import Reader
from ppmtl.models.backend import PaddleBackend
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.predict.evaluate import EvalSet, evaluate
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.predict.report import without_nan
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
Runs = dict[str, list[Check]]  # {"float32" or "bfloat16": one check per task}


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
) -> Runs:
    """What the bundle does otherwise than the training graph.

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
    outputs, changes, beyond = {}, {}, []
    for name, largest in found.largest[how].items():
        outputs[name] = {
            "largest_difference": largest,
            "relative_to_largest_value": largest / max(found.scale[name], 1e-30),
            "allowed": None if low else limits[name],
        }
        if not low and not largest <= limits[name]:
            beyond.append(f"{task}.{name} differs by {largest:.2g}, allowed {limits[name]:.2g}")
    primary, limit = None, limits["bf16_metric" if low else "metric"]
    if metrics:
        primary, before, after = metrics[how].primary, metrics[REFERENCE].values, metrics[how].values
        for name, value in before.items():
            changes[name] = {"training_graph": value, "bundle": after[name], "change": after[name] - value}
        # A metric that is undefined in both (no such class in the images) did not move
        undefined, change = math.isnan(before[primary]) and math.isnan(after[primary]), abs(changes[primary]["change"])
        if not undefined and not change <= limit:
            beyond.append(f"{task}.{primary} changes by {change:.4f}, allowed {limit:.4f}")
    judged = {"outputs": outputs, "primary": primary, "primary_may_change_by": limit, "metrics": changes}
    return judged | {"problems": beyond}


def _noise(index: int) -> np.ndarray:
    """A smooth random image."""
    coarse = np.random.default_rng(index).integers(0, 256, (12, 20, 3), np.uint8)
    return cv2.resize(coarse, _NOISE_SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def problems(runs: Runs) -> list[str]:
    """Everything that is beyond tolerance."""
    return [f"{how}: {problem}" for how, checks in runs.items() for check in checks for problem in check["problems"]]


def write_report(folder: Path, settings: BundleSettings, runs: Runs, extra: Mapping[str, Any]) -> str:
    """Writes export_report.json (with ``extra``) and export_report.md into the bundle; returns the latter's text."""
    found, size, source = problems(runs), settings.input.size, settings.source
    about = {key: getattr(settings, key) for key in ("name", "graph_format", "pointwise")}
    document = without_nan({"passed": not found, **about, "runs": runs, **extra})
    written = json.dumps(document, indent=1, ensure_ascii=False)
    (folder / "export_report.json").write_text(written + "\n", encoding="utf-8")
    shown = "any size" if size is None else f"{size[0]} x {size[1]} (H x W)"
    parts = [
        f"# {settings.name}: exported as {settings.graph_format}, {shown}",
        f"Weights: {source.weights}, step {source.step}, sha256 {source.weights_sha256[:16]}...",
        "Largest difference of each output, and each task's metric, training graph against bundle.",
    ]
    for how, checks in runs.items():
        heads = ["task", "what", "training graph", "bundle", "difference", "allowed"]
        origins = [f"- {check['task']}: first {check['pictures']} images of: {check['from']}" for check in checks]
        parts += [
            f"## {how}",
            tables.markdown(heads, [row for check in checks for row in _rows(check)]),
            "\n".join(origins),
        ]
    parts.append("**Failed:** " + "; ".join(found) if found else "**Passed.**")
    parts.append(tables.markdown(["file", "MB"], [(f.name, f"{f.bytes / 1e6:.2f}") for f in settings.files]))
    text = "\n\n".join(parts) + "\n"
    (folder / "export_report.md").write_text(text, encoding="utf-8")
    return text


def _rows(check: Check) -> list[list[str]]:
    rows = []
    for name, output in check["outputs"].items():
        allowed = "-" if output["allowed"] is None else f"{output['allowed']:.1e}"
        rows.append([check["task"], name, "", "", f"{output['largest_difference']:.1e}", allowed])
    if check["primary"] is not None:
        numbers = ["n/a" if math.isnan(v) else f"{v:.4f}" for v in check["metrics"][check["primary"]].values()]
        rows.append([check["task"], check["primary"], *numbers, f"{check['primary_may_change_by']:g}"])
    return rows
