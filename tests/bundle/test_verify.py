"""The comparison of a bundle with the training graph, on backends whose differences are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ppmtl.bundle import verify
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.classification import Classification

TASKS = {"cls": Classification("cls", ClassList(("a", "b")), input_size=(4, 4))}


class Fixed:
    """A backend that always answers the same."""

    def __init__(self, *probs: float) -> None:
        self.probs, self.calls = np.asarray([probs], np.float32), 0

    def __call__(self, images, names):
        self.calls += 1
        return {name: {"probs": np.repeat(self.probs, len(images), axis=0)} for name in names}


def check(tmp_path, before, after, *, labelled=True, tolerances=None, bf16=False, batch=1):
    samples = [Sample(f"{i}.jpg", np.zeros((4, 4, 3), np.uint8), class_index=0) for i in range(3)]
    pictures = {"cls": verify.labelled_pictures(samples, "here", 2) if labelled else verify.random_pictures(2)}
    reference = verify.record(before, TASKS, pictures, tmp_path, batch)
    limits = verify.TOLERANCES | (tolerances or {})
    (found,) = verify.compare(after, TASKS, pictures, tmp_path, batch, reference, limits, bf16=bf16)
    return found


def test_equal_backends_pass_and_each_sees_each_picture_once(tmp_path):
    before, after = Fixed(0.75, 0.25), Fixed(0.75, 0.25)
    found = check(tmp_path, before, after)
    assert found.problems == []
    assert found.outputs["probs"] == verify.Difference(0.0, 0.0, 1e-4)
    assert found.metrics["top1"] == (1.0, 1.0)
    assert (before.calls, after.calls, found.pictures.count) == (2, 2, 2)


def test_the_largest_difference_is_found_and_judged(tmp_path):
    found = check(tmp_path, Fixed(0.75, 0.25), Fixed(0.625, 0.375))
    assert found.outputs["probs"].absolute == 0.125
    assert found.outputs["probs"].relative == pytest.approx(0.125 / 0.75)
    assert found.problems == ["cls.probs differs by 0.12, allowed 0.0001"]


def test_a_metric_that_moves_is_a_problem_of_its_own(tmp_path):
    found = check(tmp_path, Fixed(0.75, 0.25), Fixed(0.25, 0.75), tolerances={"probs": 1.0})
    assert found.problems == ["cls.top1 changes by 1.0000, allowed 0.0020"]


def test_bfloat16_is_judged_by_the_metric_alone(tmp_path):
    assert check(tmp_path / "a", Fixed(0.75, 0.25), Fixed(0.7, 0.3), bf16=True).problems == []
    found = check(tmp_path / "b", Fixed(0.75, 0.25), Fixed(0.25, 0.75), bf16=True)
    assert found.problems == ["cls.top1 changes by 1.0000, allowed 0.0050"]


def test_nan_does_not_pass(tmp_path):
    found = check(tmp_path, Fixed(0.75, 0.25), Fixed(math.nan, 0.25))
    assert found.problems[0] == "cls.probs differs by inf, allowed 0.0001"


def test_another_shape_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"cls\.probs: the training graph gives shape \(1, 2\), the exported one \(1, 1\)"
    ):
        check(tmp_path, Fixed(0.75, 0.25), Fixed(1.0))


def test_without_labels_the_numbers_are_judged_and_no_metric_is_claimed(tmp_path):
    found = check(tmp_path, Fixed(0.75, 0.25), Fixed(0.75, 0.3), labelled=False)
    assert found.primary is None
    assert found.metrics == {}
    assert found.problems == ["cls.probs differs by 0.05, allowed 0.0001"]
    assert "rendered" in found.pictures.origin
