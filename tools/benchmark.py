"""Measures our operations beside their references in one run, and prints how many times faster they are.

    python tools/benchmark.py                       # pip install ensemble-boxes pycocotools gives all references
    python tools/benchmark.py --only wbf --json out.json

Figures are medians of process CPU time on one thread, ours and the reference's rounds interleaved, so that load on the
machine hits both. Before it is timed, each pair is checked to give the same result. A reference that is not installed
is reported as "not run".

To add a row: write a function that returns a Pair, and list it in CASES.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # these are read once, when numpy is imported
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from ppmtl.ops.average_precision import coco_average_precision
from ppmtl.ops.confusion import confusion_matrix
from ppmtl.ops.wbf import weighted_boxes_fusion
from ppmtl.structures import ClassList, Detections

CLASSES = 45  # TT100K, as in the challenge


@dataclass(frozen=True)
class Pair:
    """What is timed: two calls that take nothing, and whether their results agree."""

    ours: Callable[[], Any]
    reference: Callable[[], Any]
    agree: Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        make: builds the pair; ImportError if the reference is not installed.
        reference: its distribution, for the version.
        target: how many times faster we want to be.
        rounds: at most so many, for slow references.
    """

    name: str
    make: Callable[[], Pair]
    reference: str
    target: float
    rounds: int = 99


@dataclass(frozen=True)
class Row:
    """A measured case; times in milliseconds of CPU, None where it was not run."""

    name: str
    reference: str
    ours_ms: float | None
    reference_ms: float | None
    ratio: float | None
    target: float
    rounds: int
    status: str


def fusion(count: int, same_objects: bool) -> Pair:
    """Returns weighted boxes fusion of 6 views of ``count`` boxes: the same objects seen again, or unrelated boxes."""
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
    """Returns the confusion matrix of one 720x1280 map with 19 classes, 10 % ignored; against a masked bincount."""
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 19, (18, 32)), np.ones((40, 40), int)).astype(np.uint8)
    pred = np.where(rng.random(label.shape) < 0.1, rng.integers(0, 19, label.shape), label).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = 255

    def masked_bincount() -> np.ndarray:
        kept = label != 255
        return np.bincount(label[kept].astype(np.int64) * 19 + pred[kept], minlength=361).reshape(19, 19)

    return Pair(lambda: confusion_matrix(pred, label, 19), masked_bincount, np.array_equal)


def average_precision() -> Pair:
    """Returns COCO AP (10 IoUs, 4 sizes) of 300 pictures with 100 boxes each, from memory to figures."""
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
        truths.append(SimpleNamespace(boxes=boxes, labels=labels, ignored_boxes=nothing[0], ignored_labels=nothing[1]))
        predictions.append(found)
        annotations += _coco_rows(image, boxes, labels, [{"iscrowd": 0}] * 8)
        results += _coco_rows(image, near, found.labels, [{"score": s} for s in found.scores.tolist()])
    for number, row in enumerate(annotations, 1):
        row["id"] = number
    dataset = {
        "images": [{"id": image} for image in range(300)],
        "categories": [{"id": index} for index in range(CLASSES)],
        "annotations": annotations,
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


def _coco_rows(
    image: int, boxes: np.ndarray, labels: np.ndarray, extra: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return [
        {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], **more}
        for box, label, more in zip(xywh.tolist(), labels.tolist(), extra, strict=True)
    ]


CASES = (
    Case("wbf, 6 x 300 boxes of the same objects", lambda: fusion(300, True), "ensemble-boxes", 8),
    Case("wbf, 6 x 1000 boxes of the same objects", lambda: fusion(1000, True), "ensemble-boxes", 15),
    Case("wbf, 6 x 300 unrelated boxes", lambda: fusion(300, False), "ensemble-boxes", 8),
    Case("wbf, 6 x 1000 unrelated boxes", lambda: fusion(1000, False), "ensemble-boxes", 15),
    Case("confusion matrix, 720x1280, 19 classes", confusion, "numpy", 3),
    Case("COCO AP, 300 pictures x 96 boxes", average_precision, "pycocotools", 4, rounds=3),
)


def measure(case: Case, rounds: int) -> Row:
    """Returns the case's row; a missing reference or a different result is its status, never an exception."""
    try:
        pair = case.make()
    except ImportError as error:
        return Row(
            case.name, case.reference, None, None, None, case.target, 0, f"not run: {error.name} is not installed"
        )
    reference = f"{case.reference} {version(case.reference)}"
    if not pair.agree(pair.ours(), pair.reference()):
        return Row(case.name, reference, None, None, None, case.target, 0, "not run: the results differ")
    times: tuple[list[float], list[float]] = ([], [])
    rounds = min(rounds, case.rounds)
    for _ in range(rounds):
        for call, spent in zip((pair.ours, pair.reference), times, strict=True):
            start = time.process_time()
            call()
            spent.append((time.process_time() - start) * 1e3)
    ours, theirs = (statistics.median(spent) for spent in times)
    ratio = theirs / ours
    status = "reached" if ratio >= case.target else "below target"
    return Row(case.name, reference, ours, theirs, ratio, case.target, rounds, status)


def markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a table."""
    lines = [
        "| operation | reference | ours, ms | reference, ms | times faster | target | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = [row.ours_ms, row.reference_ms, row.ratio]
        cells = ["" if figure is None else f"{figure:.2f}" if figure < 100 else f"{figure:.0f}" for figure in figures]
        lines.append(f"| {row.name} | {row.reference} | {' | '.join(cells)} | {row.target:g} | {row.status} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Returns 0, or 1 if a result differs from its reference's. Missed targets are reported, not punished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds per row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    arguments = parser.parse_args(argv)
    chosen = [case for case in CASES if arguments.only.lower() in case.name.lower()]
    if not chosen or arguments.rounds < 1:
        parser.error(
            f"--rounds must be at least 1, and --only must be part of one of: {', '.join(c.name for c in CASES)}"
        )
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")  # ensemble-boxes warns about every box that it clips
    rows = [measure(case, arguments.rounds) for case in chosen]
    setting = (
        f"Python {platform.python_version()}, numpy {np.__version__}, OpenCV {cv2.__version__}, {platform.machine()}"
    )
    print(f"CPU time on one thread, medians of interleaved rounds; {setting}\n\n{markdown(rows)}")
    if arguments.json:
        content = {"setting": setting, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any("differ" in row.status for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
