"""Found and labelled boxes: pairs, and the confusion matrix with its background."""

import numpy as np

from ppmtl.ops.average_precision import BoxTruth
from ppmtl.ops.box_matching import box_confusion, match_boxes
from ppmtl.ops.boxes import Detections

LEFT, RIGHT, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (70, 70, 90, 90)


def truth(boxes, labels, ignored=()):
    return BoxTruth(_boxes(boxes), np.array(labels, np.int64), _boxes(ignored), np.zeros(len(ignored), np.int64))


def found(boxes, labels):
    return Detections(_boxes(boxes), np.linspace(1, 0.5, len(labels), dtype=np.float32), np.array(labels, np.int64))


def _boxes(rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_a_box_is_one_object_and_a_right_one_wins_over_a_closer_wrong_one():
    near, exact = (0, 0, 10, 9), LEFT
    assert match_boxes(found([exact, near], [1, 0]), truth([LEFT], [0]), 0.5).tolist() == [-1, 0]
    assert match_boxes(found([near, exact], [0, 0]), truth([LEFT], [0]), 0.5).tolist() == [-1, 0]
    assert match_boxes(found([near], [0]), truth([LEFT], [0]), 0.95).tolist() == [-1]


def test_confused_missed_and_imagined_boxes_have_places_of_their_own():
    matrix = box_confusion(found([LEFT, FAR], [1, 0]), truth([LEFT, RIGHT], [0, 1]), 2, 0.5)
    assert matrix.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_a_box_in_an_ignored_region_is_no_mistake():
    assert box_confusion(found([FAR, LEFT], [0, 0]), truth([], [], ignored=[(60, 60, 100, 100)]), 1, 0.5).tolist() == [
        [0, 0],
        [1, 0],
    ]


def test_images_without_boxes_count_nothing():
    assert not box_confusion(Detections.empty(), truth([], []), 2, 0.5).any()
    assert box_confusion(Detections.empty(), truth([LEFT], [1]), 2, 0.5)[1, 2] == 1
