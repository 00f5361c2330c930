"""The comparison of a bundle with the training graph, on backends whose differences are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ppmtl.bundle.verify import BFLOAT16, FLOAT32, INT8, REFERENCE, Images, check_task
from ppmtl.data.labels import ClassIndex
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection

TASK = Classification("cls", ClassList(("a", "b")), input_size=(4, 4))
READER = [Sample(f"{i}.jpg", np.zeros((4, 4, 3), np.uint8), {"cls": ClassIndex(0)}) for i in range(3)]


class Fixed:
    """A backend that always answers the same."""

    def __init__(self, *probs: float) -> None:
        self.probs, self.calls = np.asarray([probs], np.float32), 0

    def __call__(self, images, names):
        self.calls += 1
        return {name: {"probs": np.repeat(self.probs, len(images), axis=0)} for name in names}


def check(before, after, *, labelled=True, how=FLOAT32, **tolerances):
    images = Images("here", 2, READER if labelled else None)
    return check_task(TASK, images, {REFERENCE: before, how: after}, batch=1, tolerances=tolerances)[how]


def test_equal_backends_pass_and_each_sees_each_image_once():
    before, after = Fixed(0.75, 0.25), Fixed(0.75, 0.25)
    found = check(before, after)
    assert found["problems"] == []
    assert list(found["outputs"]["probs"].values()) == [0.0, 0.0, 1e-4]
    assert found["metrics"]["top1"] == {"training_graph": 1.0, "bundle": 1.0, "change": 0.0}
    assert (before.calls, after.calls, found["pictures"]) == (2, 2, 2)


@pytest.mark.parametrize(
    ("after", "options", "problems"),
    [
        ((0.625, 0.375), {}, ["cls.probs differs by 0.12, allowed 0.0001"]),
        ((0.625, 0.375), {"probs": 0.125}, []),
        ((0.25, 0.75), {"probs": 1.0}, ["cls.top1 changes by 1.0000, allowed 0.0020"]),
        ((0.25, 0.75), {"probs": 1.0, "metric": 1.0}, []),
        ((0.75, 0.3), {"labelled": False}, ["cls.probs differs by 0.05, allowed 0.0001"]),
        ((0.7, 0.3), {"how": BFLOAT16}, []),  # judged by the metric alone
        ((0.25, 0.75), {"how": BFLOAT16}, ["cls.top1 changes by 1.0000, allowed 0.0050"]),
        ((0.25, 0.75), {"how": BFLOAT16, "bf16_metric": 1.0}, []),
        ((0.6, 0.4), {"how": INT8, "int8_drop": 0.01}, []),
        ((0.25, 0.75), {"how": INT8, "int8_drop": 0.01}, ["cls.top1 drops by 1.0000, allowed 0.0100"]),
        ((0.25, 0.75), {"how": INT8, "int8_drop": 1.0}, []),
    ],
)
def test_what_is_beyond_the_tolerances_of_task_and_command_is_a_problem(after, options, problems):
    assert check(Fixed(0.75, 0.25), Fixed(*after), **options)["problems"] == problems


def test_in_8_bit_a_better_metric_is_no_problem():
    found = check(Fixed(0.25, 0.75), Fixed(0.75, 0.25), how=INT8, int8_drop=0.0)
    assert (found["metrics"]["top1"]["change"], found["problems"]) == (1.0, [])
    assert found["ms_per_input"].keys() == {"training_graph", "bundle"}


def test_the_largest_difference_is_reported_also_relative_to_the_largest_value():
    found = check(Fixed(0.75, 0.25), Fixed(0.625, 0.375))["outputs"]["probs"]
    assert found["largest_difference"] == 0.125
    assert found["relative_to_largest_value"] == pytest.approx(0.125 / 0.75)


def test_nan_does_not_pass():
    found = check(Fixed(0.75, 0.25), Fixed(math.nan, 0.25))
    assert found["problems"][0] == "cls.probs differs by inf, allowed 0.0001"


def test_another_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"cls\.probs: the training graph gives shape \(1, 2\), the exported one \(1, 1\)"
    ):
        check(Fixed(0.75, 0.25), Fixed(1.0))


def test_without_labels_no_metric_is_claimed():
    found = check(Fixed(0.75, 0.25), Fixed(0.75, 0.25), labelled=False)
    assert (found["primary"], found["metrics"], found["problems"]) == (None, {}, [])


def boxes_backend(boxes, scores):
    raw = {"boxes": np.float32([boxes]), "scores": np.float32([scores])}
    return lambda images, names: {
        name: {k: np.repeat(v, len(images), axis=0) for k, v in raw.items()} for name in names
    }


BOXES, SCORES = [[0, 0, 20, 20], [30, 0, 60, 30], [0, 40, 50, 60]], [[0.9, 0.3], [0.3, 0.7], [0.6, 0.1]]
ORDERS = {  # boxes and scores that another engine gives; what is said about them without suppression
    "the same": (BOXES, SCORES, []),
    "rows that changed places": (BOXES[::-1], SCORES[::-1], []),
    "a box that moved a little with the places": ([[0, 0, 20.5, 20], *BOXES[1:]], SCORES, []),
    "a box that moved": (
        [[0, 0, 23, 20], *BOXES[1:]],
        SCORES,
        ["det.boxes without a match differs by 0.33, allowed 0.01"],
    ),
    "another class": (BOXES, [[0.3, 0.9], *SCORES[1:]], ["det.boxes without a match differs by 0.33, allowed 0.01"]),
    "a score at the threshold": (BOXES, [[0.9, 0.3], [0.3, 0.7], [0.6, 0.05]], []),
}


@pytest.mark.parametrize("other", ORDERS)
def test_boxes_that_are_not_suppressed_are_compared_as_sets(other):
    boxes, scores, problems = ORDERS[other]
    task = Detection("det", ClassList(("a", "b")), nms_iou=None, score_threshold=0.0999999, input_size=(64, 64))
    backends = {REFERENCE: boxes_backend(BOXES, SCORES), FLOAT32: boxes_backend(boxes, scores)}
    found = check_task(task, Images("random", 1), backends, batch=1, tolerances={})[FLOAT32]
    assert found["problems"] == problems
    without = found["outputs"]["boxes without a match"]
    assert without["without_match_at_the_cut"] == int(other == "a score at the threshold")
    assert found["outputs"]["boxes"]["allowed"] is None


def test_boxes_that_are_suppressed_are_compared_row_by_row():
    task = Detection("det", ClassList(("a", "b")), input_size=(64, 64))
    backends = {REFERENCE: boxes_backend(BOXES, SCORES), FLOAT32: boxes_backend(BOXES[::-1], SCORES[::-1])}
    found = check_task(task, Images("random", 1), backends, batch=1, tolerances={})[FLOAT32]
    assert len(found["problems"]) == 2
