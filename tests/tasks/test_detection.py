"""Targets, decoding and merging of boxes."""

import numpy as np
import pytest
from samples import make_sample

from ppmtl.ops.boxes import Detections
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.detection import Detection, fuse
from ppmtl.tasks.views import View

CLASSES = ClassList(("pl50", "i5"), (3, 7))


def sample(boxes, labels, path="a.jpg"):
    return make_sample(np.zeros((50, 100, 3), np.uint8), boxes=boxes, classes=labels, path=path)


def test_targets_are_normalised_centres_with_the_images_position():
    rows = Detection("det", CLASSES).collate([sample([], []), sample([[10, 10, 30, 20]], [1])])["boxes"]
    assert rows == pytest.approx(np.array([[1, 1, 0.2, 0.3, 0.2, 0.2]]))


def test_a_batch_without_boxes_carries_one_padding_row():
    targets = Detection("det", CLASSES).collate([sample([], [])])
    assert targets["boxes"].shape == (1, 6)
    assert targets["boxes"][0, 0] == -1
    assert targets["supervised"].tolist() == [1]  # it is known that there is nothing


def test_an_image_without_a_box_list_is_marked_and_has_no_row():
    unknown = Sample("b.jpg", np.zeros((5, 5, 3), np.uint8))
    targets = Detection("det", CLASSES).collate([unknown, sample([[0, 0, 4, 4]], [1])])
    assert targets["supervised"].tolist() == [0, 1]
    assert targets["boxes"][:, :2].tolist() == [[1, 1]]


def test_decoding_undoes_the_view_clips_and_drops_what_is_outside():
    raw = {
        "boxes": np.array([[[0, 0, 20, 20], [190, 0, 300, 50], [210, 0, 220, 9]]], np.float32),
        "scores": np.array([[[0.9, 0.0], [0.0, 0.8], [0.7, 0.0]]], np.float32),
    }
    found = Detection("det", CLASSES).decode(raw, 0, View((100, 200)).meta((50, 100), "x"), single=True)
    assert found.boxes == pytest.approx(np.array([[0, 0, 10, 10], [95, 0, 100, 25]]))
    assert found.labels.tolist() == [0, 1]


def test_no_suppression_when_the_head_needs_none():
    raw = {
        "boxes": np.tile(np.array([0, 0, 9, 9], np.float32), (1, 3, 1)),
        "scores": np.full((1, 3, 2), 0.5, np.float32),
    }
    meta = View((50, 100)).meta((50, 100), "x")
    assert len(Detection("det", CLASSES, nms_iou=None).decode(raw, 0, meta, single=True)) == 6
    assert len(Detection("det", CLASSES).decode(raw, 0, meta, single=True)) == 2


def test_fusing_copies_of_one_view_returns_it():
    view = Detections(
        np.array([[0, 0, 10, 10], [40, 40, 90, 50]], np.float32), np.array([0.9, 0.3], np.float32), np.array([1, 0])
    )
    fused = fuse([view, view, view], 0.55)
    assert fused.boxes == pytest.approx(view.boxes, abs=1e-4)
    assert fused.scores == pytest.approx(view.scores, abs=1e-6)
    assert fused.labels.tolist() == [1, 0]


def test_a_perfect_prediction_measures_one_and_an_empty_one_zero():
    task = Detection("det", CLASSES)
    truth = sample([[10, 10, 30, 20], [50, 5, 80, 45]], [0, 1])
    label = truth.labels["det"]
    for prediction, expected in (
        (Detections(label.boxes, np.array([0.9, 0.8], np.float32), label.classes), 1.0),
        (Detections.empty(), 0.0),
    ):
        meter = task.new_meter()
        meter.add(truth, prediction)
        assert meter.result().values["ap50"] == pytest.approx(expected)


def test_confusion_and_the_score_of_an_image_look_at_boxes_that_people_are_shown():
    task = Detection("det", CLASSES)
    truth = sample([[10, 10, 30, 20], [50, 5, 80, 45]], [0, 1])
    label = truth.labels["det"]
    found = Detections(label.boxes, np.array([0.9, 0.2], np.float32), label.classes)
    assert task.image_score(truth, found, 0.1) == 1.0
    assert task.image_score(truth, found, 0.5) == pytest.approx(2 / 3)
    assert np.isnan(task.image_score(sample([], []), found[:0], 0.5))
    meter = task.new_meter()
    meter.add(truth, found)
    result = meter.result()
    assert result.values["ap50"] == pytest.approx(1.0)
    assert result.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
