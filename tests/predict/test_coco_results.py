"""Entries of COCO results files: what pycocotools reads from them and measures with them."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppmtl.data.labels import Boxes
from ppmtl.ops.boxes import Detections
from ppmtl.ops.masks import Rle
from ppmtl.predict.coco_results import coco_results
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.captions import Caption, Captions
from ppmtl.tasks.classification import Classification, ClassProbs
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.instances import InstanceMasks, Instances
from ppmtl.tasks.segmentation import SegMap, Segmentation

CLASSES = ClassList(("a", "b"), (3, 7))
SIZE = (32, 48)
BOXES = np.array([[4, 4, 20, 14], [30, 8, 41.3, 27.9], [2, 20, 12, 30]], np.float32)
SCORES = np.array([0.9, 0.6, 0.1], np.float32)
LABELS = np.array([1, 0, 1], np.int64)


def mask(x1, y1, x2, y2):
    return Rle.of(np.ones((y2 - y1, x2 - x1)), SIZE, (y1, x1))


OBJECTS = InstanceMasks(BOXES, SCORES, LABELS, (mask(4, 4, 20, 14), mask(31, 8, 41, 28), None))


def annotated(truth, classes=((3, "a"), (7, "b"))):
    """A COCO file in memory: image 17 with these rows."""
    content = {
        "images": [{"id": 17, "height": SIZE[0], "width": SIZE[1]}],
        **({"categories": [{"id": i, "name": name} for i, name in classes]} if classes else {}),
        "annotations": [{"id": 1 + i, "image_id": 17, "iscrowd": 0} | row for i, row in enumerate(truth)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
    return coco


def measured(coco, rows, kind):
    """pycocotools' average precision over IoUs, and at IoU 0.5."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(rows))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2].tolist()


def test_boxes_are_measured_by_pycocotools_as_by_evaluation():
    truth = np.array([[4, 4, 20, 13], [29, 8, 42, 28], [40, 2, 47, 6]], np.float32)
    classes, task = np.array([1, 0, 0]), Detection("det", CLASSES)
    found = Detections(BOXES, SCORES, LABELS)
    rows = coco_results({"det": found}, {"det": task}, 17)["det"]
    boxes = [{"category_id": CLASSES.ids[c], "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
             for (x1, y1, x2, y2), c in zip(truth.tolist(), classes, strict=True)]  # fmt: skip
    meter = task.new_meter()
    meter.add(Sample("a.jpg", np.zeros((*SIZE, 3), np.uint8), {"det": Boxes(truth, classes)}), found)
    values = meter.result().values
    assert 0.1 < values["ap50_95"] < 0.9
    assert measured(annotated(boxes), rows, "bbox") == pytest.approx([values["ap50_95"], values["ap50"]])


def test_rows_have_the_users_category_ids_and_the_thresholds_boxes_as_xywh():
    rows = coco_results(
        {"det": Detections(BOXES, SCORES, LABELS)}, {"det": Detection("det", CLASSES)}, 5, threshold=0.6
    )
    assert rows["det"][0] == {"image_id": 5, "category_id": 7, "bbox": [4.0, 4.0, 16.0, 10.0], "score": 0.9}
    assert [row["score"] for row in rows["det"]] == [0.9, 0.6]


def test_masks_are_run_lengths_that_pycocotools_measures():
    rows = coco_results({"ins": OBJECTS}, {"ins": Instances("ins", CLASSES)}, 17)["ins"]
    half = [{"category_id": 7, "bbox": [4, 4, 16, 5], "area": 80, "segmentation": [[4, 4, 20, 4, 20, 9, 4, 9]]},
            {"category_id": 3, "bbox": [31, 8, 10, 20], "area": 200,
             "segmentation": [[31, 8, 41, 8, 41, 28, 31, 28]]}]  # fmt: skip
    assert measured(annotated(half), rows[:2], "segm") == pytest.approx([(0.1 + 1) / 2, 1.0])  # IoU 0.5 and 1
    assert "segmentation" not in rows[2]  # its mask is not known


def test_a_sentence_is_what_loadres_takes_for_captions():
    rows = coco_results({"cap": Caption("a red car", 0.5)}, {"cap": Captions("cap", _words())}, 17)["cap"]
    assert rows == [{"image_id": 17, "caption": "a red car"}]
    coco = annotated([{"caption": "a car"}], classes=())
    with contextlib.redirect_stdout(io.StringIO()):
        assert coco.loadRes(rows).loadAnns([1]) == [{"image_id": 17, "caption": "a red car", "id": 1}]


def _words():
    return ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "car"))


def test_answers_that_coco_has_no_form_for_are_left_out_and_empty_ones_are_not():
    tasks = {
        "seg": Segmentation("seg", CLASSES),
        "cls": Classification("cls", CLASSES),
        "det": Detection("det", CLASSES),
    }
    nothing = Detections(BOXES[:0], SCORES[:0], LABELS[:0])
    found = {"seg": SegMap(np.zeros(SIZE, np.uint8)), "cls": ClassProbs(np.ones(2, np.float32) / 2), "det": nothing}
    assert coco_results(found, tasks, 1) == {"det": []}


def test_a_number_that_is_not_finite_is_refused():
    broken = Detections(BOXES[:1], np.array([np.nan], np.float32), LABELS[:1])
    with pytest.raises(ValueError, match="must be finite"):
        coco_results({"det": broken}, {"det": Detection("det", CLASSES)}, 1)
