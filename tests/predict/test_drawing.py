"""Pictures of predictions."""

import numpy as np

from ppmtl.predict.drawing import class_colors, draw, draw_sample
from ppmtl.structures import ClassList, ClassProbs, Detections, Sample, SegMap
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import Segmentation

CLASSES = ClassList(("road", "sky", "my own class"))
TASKS = {"seg": Segmentation("seg", CLASSES), "cls": Classification("cls", CLASSES), "det": Detection("det", CLASSES)}
IMAGE = np.full((120, 160, 3), 100, np.uint8)


def test_known_street_classes_keep_their_colours_and_others_get_their_own():
    colors = class_colors(CLASSES)
    assert colors[0].tolist() == [128, 64, 128]
    assert len(np.unique(class_colors(ClassList(tuple(map(str, range(45))))), axis=0)) == 45


def test_masks_are_blended_and_unlabelled_pixels_left_alone():
    labels = np.zeros((120, 160), np.uint8)
    labels[:, 80:] = 255
    drawn = draw(IMAGE, {"seg": SegMap(labels)}, TASKS, 0.5)
    assert drawn[60, 20].tolist() == [114, 82, 114]
    assert drawn[60, 120].tolist() == [100, 100, 100]


def test_boxes_below_the_threshold_are_not_drawn():
    boxes = np.array([[10, 40, 60, 90], [90, 40, 150, 90]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.2], np.float32), np.array([2, 2]))
    drawn = draw(IMAGE, {"det": found}, TASKS, 0.5)
    assert (drawn[65, 10] != 100).any()
    assert (drawn[65, 90] == 100).all()


def test_the_picture_given_is_not_painted_on():
    before = IMAGE.copy()
    draw(IMAGE, {"cls": ClassProbs(np.array([0.1, 0.2, 0.7], np.float32))}, TASKS, 0.5)
    assert np.array_equal(IMAGE, before)


def test_labels_and_predictions_stand_side_by_side():
    sample = Sample("x", IMAGE, label_map=np.zeros((120, 160), np.uint8))
    both = draw_sample(sample, {"seg": SegMap(np.ones((120, 160), np.uint8))}, TASKS, 0.5)
    assert both.shape == (120, 324, 3)
    assert (both[60, 20] != both[60, 200]).any()
