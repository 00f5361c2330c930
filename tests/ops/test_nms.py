"""Suppression against golden nms.json and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppmtl.ops.boxes import Detections, clip_boxes, iou_one_to_many
from ppmtl.ops.nms import candidates, nms

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "nms.json").read_text())


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN["cases"] if c["multi_label"]], ids=lambda c: f"{c['conf']}-{c['iou']}"
)
def test_rows_equal_the_reference(case):
    boxes = np.array(GOLDEN["boxes"], np.float32)
    scores = np.array(GOLDEN["scores_obj_times_cls"], np.float32)
    scores[np.array(GOLDEN["obj"]) <= case["conf"]] = 0  # the reference also asks the objectness alone
    found = nms(candidates(boxes, scores, case["conf"]), case["iou"], case["max_det"])
    expected = np.array(case["dets_xyxy_conf_cls"])
    assert found.boxes == pytest.approx(expected[:, :4], abs=1e-3)
    assert found.scores == pytest.approx(expected[:, 4], abs=1e-5)
    assert found.labels.tolist() == expected[:, 5].astype(int).tolist()


def test_other_classes_do_not_suppress_each_other():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]], np.float32)
    found = Detections(boxes, np.array([0.5, 0.9, 0.8], np.float32), np.array([0, 1, 1]))
    kept = nms(found, 0.5, 10)
    assert kept.labels.tolist() == [1, 0]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])


def test_an_iou_equal_to_the_threshold_survives():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # IoU exactly 0.5
    both = Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64))
    assert len(nms(both, 0.5, 10)) == 2
    assert len(nms(both, 0.49, 10)) == 1


def test_nothing_in_nothing_out():
    assert len(nms(Detections.empty(), 0.5, 10)) == 0
    assert len(candidates(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), 0.1)) == 0


def test_a_box_may_be_several_classes_and_a_score_at_the_threshold_is_none():
    found = candidates(np.zeros((1, 4), np.float32), np.array([[0.5, 0.25, 0.75]], np.float32), 0.25)
    assert found.labels.tolist() == [2, 0]


def test_clipping_and_iou_by_hand():
    assert clip_boxes(np.array([[-5, 2, 50, 90]], np.float32), (20, 30)).tolist() == [[0, 2, 30, 20]]
    iou = iou_one_to_many(np.array([0, 0, 2, 2.0]), np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 5, 5.0]]))
    assert iou == pytest.approx([1 / 7, 1, 0])
