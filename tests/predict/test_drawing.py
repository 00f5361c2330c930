"""Drawings of what several tasks found."""

import numpy as np
from samples import make_sample

from ppmtl.ops.boxes import Detections
from ppmtl.ops.drawing import class_colors
from ppmtl.predict.drawing import draw, draw_sample
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification, ClassProbs
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import SegMap, Segmentation

CLASSES = ClassList(("road", "sky", "my own class"))
TASKS = {"seg": Segmentation("seg", CLASSES), "cls": Classification("cls", CLASSES), "det": Detection("det", CLASSES)}
IMAGE = np.full((120, 160, 3), 100, np.uint8)
MAP = SegMap(np.ones((120, 160), np.uint8))
PROBS = ClassProbs(np.array([0.1, 0.2, 0.7], np.float32))


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


def test_masks_lie_below_objects_and_objects_below_text_whatever_the_order():
    box = Detections(np.array([[0, 2, 160, 110]], np.float32), np.array([0.9], np.float32), np.array([2]))
    found = {"cls": PROBS, "det": box, "seg": MAP}
    expected = IMAGE
    for name in ("seg", "det", "cls"):
        expected = draw(expected, {name: found[name]}, TASKS, 0.5)
    assert np.array_equal(draw(IMAGE, found, TASKS, 0.5), expected)
    assert np.array_equal(draw(IMAGE, dict(reversed(found.items())), TASKS, 0.5), expected)


def test_the_given_image_is_not_painted_on():
    before = IMAGE.copy()
    draw(IMAGE, {"cls": PROBS}, TASKS, 0.5)
    assert np.array_equal(IMAGE, before)


def test_labels_and_predictions_stand_side_by_side():
    sample = make_sample(IMAGE, label_map=np.zeros((120, 160), np.uint8), boxes=np.array([[10, 40, 60, 90]]))
    # A class without a label, and boxes that were not asked for: neither is drawn on the left
    both = draw_sample(sample, {"seg": MAP, "cls": PROBS}, TASKS, 0.5)
    assert both.shape == (120, 324, 3)
    assert np.array_equal(both[:, :160], draw(IMAGE, {"seg": SegMap(np.zeros_like(MAP.labels))}, TASKS, 0.5))
    assert np.array_equal(both[:, 164:], draw(IMAGE, {"seg": MAP, "cls": PROBS}, TASKS, 0.5))
