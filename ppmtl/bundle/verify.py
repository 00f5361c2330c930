"""Compares an exported bundle with the training graph: raw arrays number for number, and each task's metric.

Training graph and bundle (in float32, in bfloat16) run side by side through the one pipeline of evaluation, which takes them
for several tasks that want to see the same view: every image is read once and shown once to each network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import Bundle, read_bundle
from ppmtl.bundle.settings import SINGLE_FILE
from ppmtl.data.reader import Reader
from ppmtl.models.backend import PaddleBackend
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.ops.box_matching import unmatched
from ppmtl.predict.evaluate import EvalSet, evaluate
from ppmtl.predict.pipeline import Backend, Pipeline, make_view
from ppmtl.structures import Size
from ppmtl.tasks.base import Metrics, Raw, Task
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.views import View

# How far a task's primary metric may move: a near tie may fall the other way on few images; in bfloat16 numbers differ by
# some 7e-3 and only the metric can judge. How far raw arrays may differ is said by the task (``Task.tolerances``). Measured on
# the demo model: 2e-6 for probabilities, 7e-7 for scores, 3e-4 px for boxes of up to 700 px, no change of any metric; the
# networks of the paper are ten times deeper.
METRIC_TOLERANCES = {"metric": 0.002, "bf16_metric": 0.005}
REFERENCE, FLOAT32, BFLOAT16, INT8 = "training graph", "float32", "bfloat16", "8 bit"
SINGLE, INT8_SINGLE, FINAL = "single file", "8 bit, single file", "single file, final boxes"
_JUDGED_BY_METRIC = {BFLOAT16: "bf16_metric", INT8: "int8_drop", INT8_SINGLE: "int8_drop"}
# Where the same numbers lead to other boxes: an IoU or a score that lies on a threshold up to rounding. A share of the boxes.
_BOXES_ON_THE_LINE = 0.001
# Of boxes that are not suppressed (DINO), rows have no order to rely on: where two proposals have the same score up to
# rounding they change places, two queries then start from the other's box, and the others, which look at them, move a little.
# So boxes are compared as sets: one of the same class whose score and sides (as a share of the longer) are within these is
# the same, and so many may have none; whether that matters is for the metric to say.
_SAME_SCORE, _SAME_SIDE, _BOXES_WITHOUT_MATCH = 0.01, 0.05, 0.01
_NOISE_SIZE: Size = (360, 640)
_BY_ROW = ("boxes", "scores", "coefficients")  # raw arrays with a row per box
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
    if (folder / SINGLE_FILE).is_file():
        backends[SINGLE] = _single_file(bundle)
    return _check_tasks(bundle, images, backends, batch=batch, tolerances=tolerances)


def check_eight_bits(before: Path, after: Path, images: Mapping[str, Images], *, batch: int, max_drop: float) -> Runs:
    """What a bundle in 8 bit does otherwise than the one in float32 that it was made of; only a worse metric is a problem.

    Args:
        before, after: the bundles.
        images: {task: what it is measured on}, labelled.
        batch: inputs that run together.
        max_drop: of each task's primary metric.
    """
    floats, bundle = read_bundle(before), read_bundle(after)
    backends: dict[str, Backend] = {REFERENCE: open_backend(floats), INT8: open_backend(bundle)}
    if (after / SINGLE_FILE).is_file():
        backends[INT8_SINGLE] = _single_file(bundle)
    return _check_tasks(bundle, images, backends, batch=batch, tolerances={"int8_drop": max_drop})


def finish_boxes(folder: Path, images: Mapping[str, Images]) -> Runs:
    """Gives a bundle's model.onnx final boxes, and says how many are not those that the pipeline makes of its raw arrays."""
    from ppmtl.bundle.final_boxes import add_final_boxes  # needs onnx
    from ppmtl.bundle.single_file import FinalBoxes

    bundle, checks = read_bundle(folder), []
    raw = _single_file(bundle)  # read before the file is written anew
    add_final_boxes(folder / SINGLE_FILE, bundle.tasks)
    for name, task in bundle.tasks.items():
        if not isinstance(task, Detection):
            continue
        counted = FinalBoxes(folder / SINGLE_FILE, raw, task)
        _show({name: task}, images[name], counted, batch=1)
        share = counted.different / max(counted.boxes, 1)
        found = {"largest_difference": share, "relative_to_largest_value": share, "allowed": _BOXES_ON_THE_LINE}
        too_many = (
            [f"{name}: {counted.different} of {counted.boxes} boxes differ"] if share > _BOXES_ON_THE_LINE else []
        )
        about = {"pictures": images[name].count, "from": images[name].origin, "task": name, "primary": None}
        checks.append(about | {"outputs": {"share of other boxes": found}, "metrics": {}, "problems": too_many})
    return {FINAL: checks}


def calibration_views(bundle: Bundle, images: Mapping[str, Images], count: int) -> Iterator[tuple[np.ndarray, str]]:
    """(network input (1, H, W, 3) uint8, task) of ``count`` images of every task's set, spread over all of it."""
    for name, task in bundle.tasks.items():
        reader = images[name].reader
        assert reader is not None
        for index in np.linspace(0, len(reader) - 1, min(count, len(reader))).round().astype(int).tolist():
            image = reader[index].image
            for view in task.views((image.shape[0], image.shape[1]), augment=False):
                yield make_view(image, view)[None], name


def _single_file(bundle: Bundle) -> Backend:
    from ppmtl.bundle import single_file  # needs onnx

    return single_file.backend(bundle.folder / SINGLE_FILE, bundle.settings.heads)


def _check_tasks(bundle: Bundle, images: Mapping[str, Images], backends: Mapping[str, Backend], **options: Any) -> Runs:
    found = [check_task(task, images[name], backends, **options) for name, task in bundle.tasks.items()]
    return {how: [checks[how] for checks in found] for how in found[0]}


def check_task(
    task: Task[Any], images: Images, backends: Mapping[str, Backend], *, batch: int, tolerances: Mapping[str, float]
) -> dict[str, Check]:
    """{how: check} for every backend but the one called ``REFERENCE``; the other arguments as above.

    "problems" of a check is what is beyond tolerance, in words; its "primary" is None without labels.
    """
    both = _SideBySide(task, backends)
    metrics = _show(dict.fromkeys(backends, task), images, both, batch)
    limits = {**METRIC_TOLERANCES, **task.tolerances, **tolerances}
    about = {"pictures": images.count, "from": images.origin, "task": task.name}
    return {how: about | _judge(task.name, how, both, metrics, limits) for how in both.largest}


def _show(tasks: Mapping[str, Task[Any]], images: Images, backend: Backend, batch: int) -> dict[str, Metrics]:
    """Shows the images to the backend; {key of ``tasks``: metrics} where they are labelled. All are the same task."""
    if images.reader is None:
        shown = [_noise(index) for index in range(images.count)]
        Pipeline(tasks, backend, batch_size=batch).predict(shown, [f"random image {i}" for i in range(images.count)])
        return {}
    (name,) = {task.name for task in tasks.values()}
    sets = {name: EvalSet(images.reader, tuple(tasks))}
    return evaluate(tasks, sets, backend, batch_size=batch, limit=images.count).metrics


class _SideBySide:
    """A backend that asks every network for the same task and notes how far each is from the reference."""

    def __init__(self, task: Task[Any], backends: Mapping[str, Backend]) -> None:
        self._task, self._backends = task.name, backends
        self.sets: dict[str, _Sets] = {}
        if isinstance(task, Detection) and task.nms_iou is None:
            self.sets = {how: _Sets(task) for how in backends if how != REFERENCE}
        self.largest: dict[str, dict[str, float]] = {how: {} for how in backends if how != REFERENCE}
        self.scale: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = {how: [] for how in backends}  # per input, of every run

    def __call__(self, images: np.ndarray, ways: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        raw = {}
        for how in ways:
            started = time.perf_counter()
            raw[how] = self._backends[how](images, (self._task,))[self._task]
            self.seconds[how].append((time.perf_counter() - started) / len(images))
        for how, of_boxes in self.sets.items():
            of_boxes.add(raw[REFERENCE], raw[how], (images.shape[1], images.shape[2]))
        for name, wanted in raw[REFERENCE].items():
            self.scale[name] = max(self.scale.get(name, 0.0), float(np.abs(wanted).max(initial=0.0)))
            for how, largest in self.largest.items():
                difference = _largest_difference(f"{self._task}.{name}", wanted, raw[how][name])
                largest[name] = max(largest.get(name, 0.0), difference)
        return raw


class _Sets:
    """How many boxes of two networks have no match in the other's, those of all images together."""

    def __init__(self, task: Detection) -> None:
        self._task = task
        self.boxes = self.lost = self.at_the_cut = 0

    def add(self, wanted: Raw, got: Raw, size: Size) -> None:
        """Takes the raw arrays of a batch; what lies at the cut up to rounding may be in one of them only."""
        meta, tolerances = View(size).meta(size, ""), self._task.tolerances
        for row in range(len(wanted["boxes"])):
            sets = [self._task.decode(raw, row, meta, single=True) for raw in (wanted, got)]
            full = max(map(len, sets)) == self._task.max_detections
            cut = (
                min(found.scores[-1] for found in sets) if full and all(map(len, sets)) else self._task.score_threshold
            )
            pairs = unmatched(*sets, score=_SAME_SCORE, pixels=tolerances["boxes"], share=_SAME_SIDE)
            alone = np.concatenate([found.scores[rows] for found, rows in zip(sets, pairs, strict=True)])
            excused = int((alone <= cut + tolerances["scores"]).sum())
            self.boxes += sum(map(len, sets))
            self.lost += len(alone) - excused
            self.at_the_cut += excused

    def as_output(self) -> dict[str, Any]:
        """The entry of a check's "outputs"."""
        share = self.lost / max(self.boxes, 1)
        counted = {"boxes": self.boxes, "without_match": self.lost, "without_match_at_the_cut": self.at_the_cut}
        about = {"largest_difference": share, "relative_to_largest_value": share, "allowed": _BOXES_WITHOUT_MATCH}
        return about | counted


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
    low = how in _JUDGED_BY_METRIC  # 8 bits of mantissa or in all: only the metric can judge
    outputs: dict[str, dict[str, Any]] = {}
    changes, beyond = {}, []
    for name, largest in found.largest[how].items():
        outputs[name] = {
            "largest_difference": largest,
            "relative_to_largest_value": largest / max(found.scale[name], 1e-30),
            "allowed": None if low or (how in found.sets and name in _BY_ROW) else limits[name],
        }
    if how in found.sets:
        outputs["boxes without a match"] = found.sets[how].as_output() | ({"allowed": None} if low else {})
    for name, output in outputs.items():
        if output["allowed"] is not None and not output["largest_difference"] <= output["allowed"]:
            beyond.append(
                f"{task}.{name} differs by {output['largest_difference']:.2g}, allowed {output['allowed']:.2g}"
            )
    primary, limit = None, limits[_JUDGED_BY_METRIC.get(how, "metric")]
    if metrics:
        primary, before, after = metrics[how].primary, metrics[REFERENCE].values, metrics[how].values
        for name, value in before.items():
            changes[name] = {"training_graph": value, "bundle": after[name], "change": after[name] - value}
        # A metric that is undefined in both (no such class in the images) did not move
        undefined, change = math.isnan(before[primary]) and math.isnan(after[primary]), abs(changes[primary]["change"])
        verb = "changes"
        if how in (INT8, INT8_SINGLE):  # asked for knowing that numbers change: better is welcome
            verb, change = "drops", -changes[primary]["change"]
        if not undefined and not change <= limit:
            beyond.append(f"{task}.{primary} {verb} by {change:.4f}, allowed {limit:.4f}")
    before_ms, after_ms = (1e3 * float(np.median(found.seconds[which])) for which in (REFERENCE, how))
    judged = {"outputs": outputs, "primary": primary, "primary_may_change_by": limit, "metrics": changes}
    return judged | {"ms_per_input": {"training_graph": before_ms, "bundle": after_ms}, "problems": beyond}


def _noise(index: int) -> np.ndarray:
    """A smooth random image."""
    coarse = np.random.default_rng(index).integers(0, 256, (12, 20, 3), np.uint8)
    return cv2.resize(coarse, _NOISE_SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def problems(runs: Runs) -> list[str]:
    """Everything that is beyond tolerance."""
    return [f"{how}: {problem}" for how, checks in runs.items() for check in checks for problem in check["problems"]]
