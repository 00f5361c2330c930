"""Found and labelled boxes: pairs, and the confusion matrix with its background."""

import numpy as np

from ppmtl.ops.average_precision import BoxTruth
from ppmtl.ops.box_matching import box_confusion, match_boxes, unmatched
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


def test_sets_of_boxes_are_the_same_whatever_their_order():
    first = found([LEFT, RIGHT, FAR], [0, 0, 1])
    assert not any(rows.any() for rows in unmatched(first, first[np.array([2, 0, 1])], score=0, pixels=0))
    moved = Detections(first.boxes + 0.5, first.scores, first.labels)
    assert not any(rows.any() for rows in unmatched(first, moved, score=0, pixels=0.5))
    assert [rows.tolist() for rows in unmatched(first, moved, score=0, pixels=0.4)] == [[True] * 3] * 2


def test_a_box_of_another_class_or_score_and_a_second_copy_have_no_match():
    first = found([LEFT, RIGHT], [0, 0])  # scores 1 and 0.5
    other = Detections(first.boxes, np.float32([1, 0.6]), np.array([1, 0]))
    assert [rows.tolist() for rows in unmatched(first, other, score=0.05, pixels=1)] == [[True] * 2] * 2
    assert [rows.tolist() for rows in unmatched(first, other, score=0.2, pixels=1)] == [[True, False]] * 2
    twice = Detections(first.boxes[[0, 0]], first.scores[[0, 0]], first.labels[[0, 0]])
    assert [rows.tolist() for rows in unmatched(twice, first, score=0, pixels=1)] == [[False, True]] * 2
    nothing = unmatched(first, Detections.empty(), score=1, pixels=1)
    assert [rows.tolist() for rows in nothing] == [[True, True], []]
