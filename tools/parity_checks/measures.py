"""mIoU against PaddleSeg, average precision against PaddleDetection and pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import paddle

from parity_checks.outcome import NotRun, Outcome, need, not_run, release
from ppmtl.ops.average_precision import coco_average_precision
from ppmtl.ops.confusion import confusion_matrix, mean_iou
from ppmtl.structures import ClassList, Detections

CLASSES, PICTURES = 6, 40
MENDED = "its concat of 0-D areas, which Paddle 3 refuses, replaced by stack as in its HEAD"


def checks() -> Iterator[Outcome]:
    """Yields the rows of the metrics."""
    runs: tuple[tuple[Callable[[], Iterator[Outcome]], str, str], ...] = (
        (_miou, "mIoU", release("paddleseg")),
        (_ap_of_pycocotools, "average precision", release("pycocotools")),
        (_ap_of_ppdet, "average precision", f"{release('paddledet')} COCOMetric"),
    )
    for run, title, reference in runs:
        try:
            yield from run()
        except NotRun as reason:
            yield not_run(title, reference, str(reason))


def _miou() -> Iterator[Outcome]:
    module = need("paddleseg.utils.metrics", "paddleseg")
    rng = np.random.RandomState(0)
    label = rng.randint(0, 18, (3, 90, 160))  # class 18 never labelled or predicted
    pred = np.where(rng.rand(3, 90, 160) < 0.7, label, rng.randint(0, 18, label.shape))
    label[:, :7] = 255
    reference, total = release("paddleseg"), np.zeros((3, 19), np.int64)
    matrix = np.zeros((19, 19), np.int64)
    for p, t in zip(pred, label, strict=True):
        areas, mended = _areas(module, p, t)
        total += np.stack([np.asarray(area) for area in areas])
        matrix += confusion_matrix(p.astype(np.uint8), t.astype(np.uint8), 19)
    if mended:
        reference += f"; {MENDED}"
    counts = np.stack([np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)])
    yield Outcome("mIoU", "areas of 19 classes, pixels", reference, float(np.abs(counts - total).max()), 0, "counts")
    value = module.mean_iou(*(SimpleNamespace(numpy=lambda row=row: row) for row in total))[1]
    yield Outcome("mIoU", "mean, absent class as 0", reference, float(abs(mean_iou(matrix, "zero") - value)), 1e-12,
                  "float64 sums of 19 numbers")  # fmt: skip


def _areas(module: Any, pred: np.ndarray, label: np.ndarray) -> tuple[list[np.ndarray], bool]:
    """Returns (intersection, prediction, label) areas and whether the reference had to be mended to give them."""
    tensors = paddle.to_tensor(pred[None]), paddle.to_tensor(label[None])
    try:
        return [a.numpy() for a in module.calculate_area(*tensors, 19)], False
    except ValueError:
        with mock.patch.object(module.paddle, "concat", paddle.stack):
            return [a.numpy() for a in module.calculate_area(*tensors, 19)], True


def _boxes() -> tuple[list[SimpleNamespace], list[Detections]]:
    """Returns ground truth and detections of some pictures: near hits, misses, repeats, crowds, an empty picture."""
    rng, truth, found = np.random.RandomState(1), [], []
    for index in range(PICTURES):
        count = 0 if index == 3 else rng.randint(1, 9)
        corner, side = rng.uniform(0, 400, (count, 2)), rng.uniform(6, 160, (count, 2))
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        crowd = rng.rand(count) < 0.1
        classes = rng.randint(0, CLASSES, count)
        truth.append(
            SimpleNamespace(boxes=boxes[~crowd], labels=classes[~crowd], ignored_boxes=boxes[crowd],
                            ignored_labels=classes[crowd], size=(640, 640))
        )  # fmt: skip
        again = np.repeat(np.arange(count), 2)
        moved = boxes[again] + rng.normal(0, 0.06, (2 * count, 4)) * np.tile(side[again], 2)
        extra = rng.uniform(0, 300, (5, 2))
        boxes = np.concatenate([moved, np.concatenate([extra, extra + 40], axis=1)]).astype(np.float32)
        labels = np.concatenate([classes[again], rng.randint(0, CLASSES, 5)])
        scores = rng.permutation(len(boxes) * 10)[: len(boxes)] / (len(boxes) * 10)
        order = np.argsort(-scores)
        found.append(Detections(boxes[order], scores[order].astype(np.float32), labels[order].astype(np.int64)))
    return truth, found


def _coco_file(truth: list[SimpleNamespace], folder: str) -> Path:
    annotations = [
        {"id": 0, "image_id": index + 1, "category_id": int(label) + 10, "bbox": _xywh(box), "iscrowd": crowd,
         "area": float((box[2] - box[0]) * (box[3] - box[1]))}
        for index, t in enumerate(truth)
        for boxes, labels, crowd in ((t.boxes, t.labels, 0), (t.ignored_boxes, t.ignored_labels, 1))
        for box, label in zip(boxes.astype(np.float64), labels, strict=True)
    ]  # fmt: skip
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    document = {
        "images": [{"id": i + 1, "height": 640, "width": 640, "file_name": f"{i}.jpg"} for i in range(len(truth))],
        "categories": [{"id": c + 10, "name": str(c)} for c in range(CLASSES)],
        "annotations": annotations,
    }
    path = Path(folder) / "truth.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _xywh(box: np.ndarray) -> list[float]:
    return [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _ours(truth: list[SimpleNamespace], found: list[Detections]) -> np.ndarray:
    classes = ClassList(tuple(str(c) for c in range(CLASSES)), tuple(c + 10 for c in range(CLASSES)))
    ap = coco_average_precision(truth, found, classes)
    return np.array([ap.ap50_95, ap.ap50, ap.ap_small, ap.ap_medium, ap.ap_large])


def _ap_of_pycocotools() -> Iterator[Outcome]:
    coco = need("pycocotools.coco", "pycocotools")
    cocoeval = need("pycocotools.cocoeval", "pycocotools")
    truth, found = _boxes()
    results = [
        {"image_id": i + 1, "category_id": int(label) + 10, "bbox": _xywh(box), "score": float(score)}
        for i, f in enumerate(found)
        for box, score, label in zip(f.boxes.astype(np.float64), f.scores, f.labels, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO(str(_coco_file(truth, folder)))
        evaluation = cocoeval.COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.array(evaluation.stats)[[0, 1, 3, 4, 5]]
    yield _row(release("pycocotools"), _ours(truth, found), stats, 1e-12, "float64 means")


def _ap_of_ppdet() -> Iterator[Outcome]:
    module = need("ppdet.metrics.metrics", "paddledet")
    truth, found = _boxes()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        metric = module.COCOMetric(
            str(_coco_file(truth, folder)),
            clsid2catid={c: c + 10 for c in range(CLASSES)},
            output_eval=os.path.join(folder, "out"),
        )
        for index, f in enumerate(found):
            rows = np.concatenate([f.labels[:, None], f.scores[:, None], f.boxes], axis=1).astype(np.float32)
            metric.update({"im_id": np.array([[index + 1]])}, {"bbox": rows, "bbox_num": np.array([len(rows)])})
        metric.accumulate()
    logging.disable(logging.NOTSET)
    stats = np.array(metric.get_results()["bbox"])[[0, 1, 3, 4, 5]]
    reference = f"{release('paddledet')} COCOMetric"
    yield _row(reference, _ours(truth, found), stats, 1e-6, "it subtracts corners in float32, we in float64")


def _row(reference: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float, reason: str) -> Outcome:
    return Outcome("average precision", f"AP, AP50, small, medium, large of {PICTURES} pictures", reference,
                   float(np.abs(ours - theirs).max()), tolerance, reason)  # fmt: skip
