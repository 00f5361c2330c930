"""Our operations beside their references in one run: how many times faster they are. To add a row: CASES, at the end."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from ppmtl import tables
from ppmtl.ops.average_precision import BoxTruth, coco_average_precision
from ppmtl.ops.boxes import Detections
from ppmtl.ops.confusion import confusion_matrix
from ppmtl.ops.wbf import weighted_boxes_fusion
from ppmtl.structures import ClassList

CLASSES = 45  # TT100K, as in the challenge


class Pair(NamedTuple):
    """What is timed: two calls that take nothing, and whether their results agree."""

    ours: Callable[[], Any]
    reference: Callable[[], Any]
    agree: Callable[[Any, Any], bool]


class Case(NamedTuple):
    """A row of the table; ``make`` raises ImportError without the distribution ``reference``."""

    name: str
    make: Callable[[], Pair]
    reference: str
    target: float  # times faster


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Times one case in milliseconds of CPU; a missing reference or another result is its status, never an exception."""
    row: dict[str, Any] = {"name": case.name, "reference": case.reference, "target": case.target}
    try:
        pair = case.make()
    except ImportError as error:
        return row | {"status": f"not run: {error.name} is not installed"}
    row["reference"] += f" {version(case.reference)}"
    if not pair.agree(pair.ours(), pair.reference()):
        return row | {"status": "not run: the results differ"}
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, spent in zip((pair.ours, pair.reference), times, strict=True):
            start = time.process_time()
            call()
            spent.append((time.process_time() - start) * 1e3)
    ours, theirs = (statistics.median(spent) for spent in times)
    status = "reached" if theirs / ours >= case.target else "below target"
    measured = {"rounds": rounds, "ours_ms": ours, "reference_ms": theirs, "ratio": theirs / ours}
    return row | {"status": status} | measured


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    heads = ["operation", "reference", "ours, ms", "reference, ms", "times faster", "target", ""]
    keys = ["name", "reference", "ours_ms", "reference_ms", "ratio", "target", "status"]
    cells = [[row.get(key, "") for key in keys] for row in rows]
    return tables.markdown(heads, [[f"{c:,.2f}" if isinstance(c, float) else c for c in line] for line in cells])


def fusion(count: int, same_objects: bool) -> Pair:
    """Weighted boxes fusion of 6 views of ``count`` boxes: the same objects seen again, or unrelated boxes."""
    from ensemble_boxes import weighted_boxes_fusion as reference

    rng = np.random.default_rng(0)
    objects = count // 3 if same_objects else 6 * count
    centre, label = rng.uniform(0.02, 0.98, (objects, 2)), rng.integers(0, CLASSES, objects)
    size = rng.lognormal(-3.4, 0.7, (objects, 2)).clip(0.004, 0.4)  # traffic signs: 3 % of the side, long tail
    lists: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    for view in range(6):
        pick = rng.integers(0, objects, count) if same_objects else np.arange(view * count, (view + 1) * count)
        at = centre[pick] + rng.normal(0, 0.12, (count, 2)) * size[pick]
        half = size[pick] * np.exp(rng.normal(0, 0.15, (count, 2))) / 2
        lists[0].append(np.hstack([at - half, at + half]).clip(0, 1))
        lists[1].append(-np.sort(-rng.beta(0.3, 3, count).clip(0.001)))  # most are weak, as below a threshold of .001
        lists[2].append(label[pick])
    return Pair(
        lambda: weighted_boxes_fusion(*lists),
        lambda: reference(*lists),
        lambda a, b: all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)),
    )


def confusion() -> Pair:
    """The confusion matrix of one 720x1280 map with 19 classes, 10 % ignored; against a masked bincount."""
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 19, (18, 32)), np.ones((40, 40), int)).astype(np.uint8)
    pred = np.where(rng.random(label.shape) < 0.1, rng.integers(0, 19, label.shape), label).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = 255

    def masked_bincount() -> np.ndarray:
        kept = label != 255
        return np.bincount(label[kept].astype(np.int64) * 19 + pred[kept], minlength=361).reshape(19, 19)

    return Pair(lambda: confusion_matrix(pred, label, 19), masked_bincount, np.array_equal)


def average_precision() -> Pair:
    """COCO AP (10 IoUs, 4 sizes) of 300 images with 96 boxes each, from memory to figures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, classes = np.random.default_rng(0), ClassList(tuple(str(index) for index in range(CLASSES)))
    truths, predictions, annotations, results = [], [], [], []
    for image in range(300):
        corner = rng.uniform(0, 1900, (8, 2))
        boxes = np.hstack([corner, corner + rng.uniform(10, 120, (8, 2))]).astype(np.float32)
        labels = rng.integers(0, CLASSES, 8)
        near = np.repeat(boxes, 12, axis=0) + rng.normal(0, 4, (96, 4)).astype(np.float32)
        found = Detections(near, rng.random(96).astype(np.float32), np.repeat(labels, 12))
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        truths.append(BoxTruth(boxes, labels, *nothing))
        predictions.append(found)
        annotations += _coco_rows(image, boxes, labels)
        rows = _coco_rows(image, near, found.labels)
        results += [row | {"score": score} for row, score in zip(rows, found.scores.tolist(), strict=True)]
    dataset = {
        "images": [{"id": image} for image in range(300)],
        "categories": [{"id": index} for index in range(CLASSES)],
        "annotations": [row | {"id": number, "iscrowd": 0} for number, row in enumerate(annotations, 1)],
        "info": {},
    }

    def by_pycocotools() -> tuple[float, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = dataset
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats[1], evaluation.stats[0]

    def ours() -> tuple[float, float]:
        result = coco_average_precision(truths, predictions, classes)
        return result.ap50, result.ap50_95

    return Pair(ours, by_pycocotools, lambda a, b: bool(np.allclose(a, b, rtol=0, atol=1e-15)))


def _coco_rows(image: int, boxes: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return [
        {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
        for box, label in zip(xywh.tolist(), labels.tolist(), strict=True)
    ]


def training(net: str, reference: str) -> Pair:
    """A training pass of ConvNeXt with numba's kernels; against Paddle's operators ("paddlepaddle") or "torch"."""
    import numba  # noqa: F401  without it ours would be Paddle's operators too

    from ppmtl.studies.benchmark_training import NETS, PaddlePass, TorchPass, agree

    ours = PaddlePass(NETS[net], "numba")
    theirs = PaddlePass(NETS[net], "paddle") if reference == "paddlepaddle" else TorchPass(NETS[net], ours.net)
    return Pair(ours, theirs, agree)


def layer(kind: str, *settings: Any, shape: Sequence[int]) -> Pair:
    """Forward and backward of a layer as it is computed in training on CPU; against Paddle's operators."""
    import numba  # noqa: F401  without it the pixel loss would be Paddle's operators too

    from ppmtl.studies import benchmark_training as training

    makers: dict[str, Callable[..., Any]] = {
        "conv": training.convolutions,
        "resize": training.resizes,
        "pixel loss": training.pixel_losses,
    }
    ours, reference = makers[kind](*settings)
    return Pair(training.LayerPass(ours, shape), training.LayerPass(reference, shape), training.agree)


def _training_cases() -> list[Case]:
    layers = (
        ("pixel loss, 2x19x32x48 to 128x192", ("pixel loss", 19, (2, 128, 192)), (2, 19, 32, 48), 4),
        ("aligned resize, 2x32x8x12 to 32x48", ("resize", (32, 48)), (2, 32, 8, 12), 1.2),
        ("1x1 convolution with bias, 2x32x32x48", ("conv", 32, 32, 1), (2, 32, 32, 48), 1.2),
        ("3x3 convolution 160 to 40, 2x160x44x60", ("conv", 160, 40, 3), (2, 160, 44, 60), 1.3),
    )
    cases = [
        Case(name, partial(layer, *settings, shape=shape), "paddlepaddle", target)
        for name, settings, shape, target in layers
    ]
    for net, size, target in (
        ("demo", "4 x 128x128", 2.0),
        ("custom", "4 x 192x192", 2.5),
        ("atto", "4 x 224x224", 2.0),
        ("tiny", "4 x 224x224", 1.9),
    ):
        make = partial(training, net, "paddlepaddle")
        cases.append(Case(f"ConvNeXt training pass, {net}, {size}", make, "paddlepaddle", target))
    for net, size in (("tiny", "4 x 224x224"), ("large", "1 x 224x224")):
        cases.append(Case(f"ConvNeXt training pass, {net}, {size}", partial(training, net, "torch"), "torch", 1 / 1.1))
    return cases


CASES = (
    Case("wbf, 6 x 300 boxes of the same objects", lambda: fusion(300, True), "ensemble-boxes", 8),
    Case("wbf, 6 x 1000 boxes of the same objects", lambda: fusion(1000, True), "ensemble-boxes", 15),
    Case("wbf, 6 x 300 unrelated boxes", lambda: fusion(300, False), "ensemble-boxes", 8),
    Case("wbf, 6 x 1000 unrelated boxes", lambda: fusion(1000, False), "ensemble-boxes", 15),
    Case("confusion matrix, 720x1280, 19 classes", confusion, "numpy", 3),
    Case("COCO AP, 300 images x 96 boxes", average_precision, "pycocotools", 4),
    *_training_cases(),
)
