"""mIoU against PaddleSeg, average precision against PaddleDetection and pycocotools."""

import contextlib
import io
import json
import logging
from types import SimpleNamespace
from unittest import mock

import numpy as np
import paddle
import pytest
from references import Row, need, parity, release

from ppmtl.ops.average_precision import coco_average_precision
from ppmtl.ops.boxes import Detections
from ppmtl.ops.confusion import confusion_matrix, mean_iou
from ppmtl.structures import ClassList

CLASSES, IMAGES = 6, 40


@parity("mIoU", "paddleseg")
def test_miou_equals_paddleseg(compare):
    module = need("paddleseg.utils.metrics")
    rng = np.random.RandomState(0)
    label = rng.randint(0, 18, (3, 90, 160))  # class 18 never labelled or predicted
    pred = np.where(rng.rand(3, 90, 160) < 0.7, label, rng.randint(0, 18, label.shape))
    label[:, :7] = 255
    reference, matrix = release("paddleseg"), np.zeros((19, 19), np.int64)
    total = np.zeros((3, 19), np.int64)  # areas of intersection, prediction, label
    replaced = "; its concat of 0-D areas, which Paddle 3 refuses, replaced by stack as in its HEAD"
    for p, t in zip(pred, label, strict=True):
        tensors = paddle.to_tensor(p[None]), paddle.to_tensor(t[None]), 19
        try:
            areas = module.calculate_area(*tensors)
        except ValueError:
            with mock.patch.object(module.paddle, "concat", paddle.stack):
                areas = module.calculate_area(*tensors)
            reference = release("paddleseg") + replaced
        total += np.stack([area.numpy() for area in areas])
        matrix += confusion_matrix(p.astype(np.uint8), t.astype(np.uint8), 19)
    counts = np.stack([np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)])
    wanted = module.mean_iou(*(SimpleNamespace(numpy=lambda row=row: row) for row in total))[1]
    mean = float(abs(mean_iou(matrix, "zero") - wanted))
    compare(
        Row("mIoU", "areas of 19 classes, pixels", reference, float(np.abs(counts - total).max()), 0, "counts"),
        Row("mIoU", "mean, absent class as 0", reference, mean, 1e-12, "float64 sums of 19 numbers"),
    )


@pytest.fixture(scope="module")
def scenes():
    """(ground truth, detections) of some images: near hits, misses, repeats, crowds, an empty image."""
    rng, truth, found = np.random.RandomState(1), [], []
    for index in range(IMAGES):
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


@pytest.fixture
def coco_file(scenes, tmp_path):
    """The ground truth as a COCO file."""
    rows = [
        {"image_id": index, "category_id": int(label) + 10, "bbox": xywh(box), "iscrowd": crowd,
         "area": float((box[2] - box[0]) * (box[3] - box[1]))}
        for index, t in enumerate(scenes[0], 1)
        for boxes, labels, crowd in ((t.boxes, t.labels, 0), (t.ignored_boxes, t.ignored_labels, 1))
        for box, label in zip(boxes.astype(np.float64), labels, strict=True)
    ]  # fmt: skip
    document = {
        "images": [{"id": i + 1, "height": 640, "width": 640, "file_name": f"{i}.jpg"} for i in range(IMAGES)],
        "categories": [{"id": c + 10, "name": str(c)} for c in range(CLASSES)],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def xywh(box):
    return [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def row(scenes, reference, theirs, tolerance, reason):
    """``theirs``: COCO's twelve numbers."""
    classes = ClassList(tuple(str(c) for c in range(CLASSES)), tuple(c + 10 for c in range(CLASSES)))
    ap = coco_average_precision(*scenes, classes)
    ours = np.array([ap.ap50_95, ap.ap50, ap.ap_small, ap.ap_medium, ap.ap_large])
    difference = float(np.abs(ours - np.array(theirs)[[0, 1, 3, 4, 5]]).max())
    quantity = f"AP, AP50, small, medium, large of {IMAGES} pictures"
    return Row("average precision", quantity, reference, difference, tolerance, reason)


@parity("average precision", "pycocotools")
def test_average_precision_equals_pycocotools(scenes, coco_file, compare):
    coco, cocoeval = need("pycocotools.coco"), need("pycocotools.cocoeval")
    results = [
        {"image_id": i + 1, "category_id": int(label) + 10, "bbox": xywh(box), "score": float(score)}
        for i, f in enumerate(scenes[1])
        for box, score, label in zip(f.boxes.astype(np.float64), f.scores, f.labels, strict=True)
    ]
    reference = coco.COCO(coco_file)
    evaluation = cocoeval.COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    compare(row(scenes, release("pycocotools"), evaluation.stats, 1e-12, "float64 means"))


@parity("average precision", "paddledet")
def test_average_precision_equals_paddledetection(scenes, coco_file, tmp_path, compare):
    module = need("ppdet.metrics.metrics")
    logging.disable(logging.INFO)
    with contextlib.redirect_stdout(io.StringIO()):
        ids = {c: c + 10 for c in range(CLASSES)}
        metric = module.COCOMetric(coco_file, clsid2catid=ids, output_eval=str(tmp_path / "out"))
        for index, f in enumerate(scenes[1], 1):
            rows = np.concatenate([f.labels[:, None], f.scores[:, None], f.boxes], axis=1).astype(np.float32)
            metric.update({"im_id": np.array([[index]])}, {"bbox": rows, "bbox_num": np.array([len(rows)])})
        metric.accumulate()
    logging.disable(logging.NOTSET)
    reference, reason = f"{release('paddledet')} COCOMetric", "it subtracts corners in float32, we in float64"
    compare(row(scenes, reference, metric.get_results()["bbox"], 1e-6, reason))
