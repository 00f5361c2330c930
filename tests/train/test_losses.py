"""The loss terms of a step: weighted, named, brought to the host once, and stopped when one is not finite."""

import numpy as np
import paddle
import pytest

from ppmtl.data.source import Batch
from ppmtl.train.losses import StepBatch, StepLosses


class Stream:
    def files(self, step):
        return [f"{step}.jpg"]


def batch(where="street", number=0, **labelled):
    """A batch of four images, of which so many are labelled."""
    return StepBatch(where, Stream(), number, Batch(np.zeros((4, 8, 8, 3), np.uint8), {}, labelled))


def terms(**tasks):
    return {task: {name: paddle.to_tensor(value) for name, value in of.items()} for task, of in tasks.items()}


def numbers(losses, index):
    return {name: value for name, (value, _) in losses.numbers[index].items()}


def test_the_printed_parts_add_up_to_the_printed_loss():
    batches = [batch(seg=4, cls=4), batch(seg=4, cls=4)]
    losses = StepLosses({"cls": 2.0}, batches)
    for of, scale in zip(batches, (1.0, 3.0), strict=True):
        losses.add(of, terms(seg={"loss_ce": 0.5 * scale, "loss_aux": 0.25}, cls={"loss_ce": scale}))
    losses.to_host(0)
    assert numbers(losses, 1) == {
        "seg.loss_ce": 1.5, "seg.loss_aux": 0.25, "loss_seg": 1.75, "cls.loss_ce": 3.0, "loss_cls": 6.0,
    }  # fmt: skip
    assert dict(losses.of_tasks) == {"seg": 0.75 + 1.75, "cls": 2.0 + 6.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_is_named_with_its_step_and_files(value):
    batches = [batch(seg=4), batch(number=7, det=4)]
    losses = StepLosses({}, batches)
    losses.add(batches[0], terms(seg={"loss_ce": 1.0}))
    losses.add(batches[1], terms(det={"loss_box": 1.0, "loss_obj": value}))
    with pytest.raises(
        FloatingPointError, match=r"task 'det', term 'loss_obj' is (nan|inf) at step 4; the batch was 7\.jpg"
    ):
        losses.to_host(3)


def test_accumulated_batches_count_by_their_labelled_images():
    batches = [batch(cls=3), batch(cls=0), batch(cls=1)]
    losses = StepLosses({}, batches)
    assert [losses.factor(of, "cls") / 3 for of in batches] == pytest.approx([0.75, 0, 0.25])
    for of, value in zip(batches, (2.0, 0.0, 4.0), strict=True):
        losses.add(of, terms(cls={"loss_ce": value}))
    losses.to_host(0)
    assert losses.of_tasks["cls"] / 3 == pytest.approx(2.0 * 0.75 + 4.0 * 0.25)
    assert [of["loss_cls"] for of in losses.numbers] == [(2.0, 0.75), (0.0, 0.0), (4.0, 0.25)]
    assert losses.labelled == {"cls": (4, 12)}


def test_batches_that_are_labelled_alike_count_exactly_one():
    for count in (1, 3, 4):
        batches = [batch(cls=count) for _ in range(7)]
        losses = StepLosses({}, batches)
        assert [losses.factor(of, "cls") for of in batches] == [1.0] * 7


def test_views_do_not_share_their_counts_and_a_task_of_several_shows_each_by_name():
    batches = [batch("real", seg=4), batch("drawn.weak", seg=1, cls=4)]
    losses = StepLosses({}, batches, several={"seg"})
    assert [losses.factor(of, "seg") for of in batches] == [1.0, 1.0]
    for of in batches:
        losses.add(of, terms(**{task: {"loss_ce": 1.0} for task in of.batch.labelled}))
    losses.to_host(0)
    assert list(losses.numbers[0]) == ["seg.loss_ce@real", "loss_seg@real"]
    assert list(losses.numbers[1]) == [
        "seg.loss_ce@drawn.weak", "loss_seg@drawn.weak", "cls.loss_ce", "loss_cls",
    ]  # fmt: skip
    assert losses.of_tasks["seg"] == 2.0
    assert losses.labelled == {"seg": (5, 8), "cls": (4, 4)}


def test_a_task_without_any_label_counts_nothing_and_has_no_loss():
    batches = [batch(seg=0, cls=2)]
    losses = StepLosses({}, batches)
    losses.add(batches[0], terms(seg={"loss_ce": 0.0}, cls={"loss_ce": 1.0}))
    losses.to_host(0)
    assert losses.factor(batches[0], "seg") == 0.0
    assert dict(losses.of_tasks) == {"cls": 1.0}
