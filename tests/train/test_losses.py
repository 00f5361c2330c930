"""The loss terms of a step: weighted, named, brought to the host once, and stopped when one is not finite."""

import paddle
import pytest

from ppmtl.train.losses import StepLosses


class Stream:
    def files(self, step):
        return [f"{step}.jpg"]


def terms(**tasks):
    return {task: {name: paddle.to_tensor(value) for name, value in of.items()} for task, of in tasks.items()}


def test_the_printed_parts_add_up_to_the_printed_loss():
    losses = StepLosses({"cls": 2.0})
    for scale in (1.0, 3.0):
        losses.add(terms(seg={"loss_ce": 0.5 * scale, "loss_aux": 0.25}, cls={"loss_ce": scale}), Stream(), 0)
    losses.to_host(0)
    assert losses.numbers[1] == {
        "seg.loss_ce": 1.5, "seg.loss_aux": 0.25, "loss_seg": 1.75, "cls.loss_ce": 3.0, "loss_cls": 6.0,
    }  # fmt: skip
    assert dict(losses.of_tasks) == {"seg": 0.75 + 1.75, "cls": 2.0 + 6.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_is_named_with_its_step_and_files(value):
    losses = StepLosses({})
    losses.add(terms(seg={"loss_ce": 1.0}), Stream(), 6)
    losses.add(terms(det={"loss_box": 1.0, "loss_obj": value}), Stream(), 7)
    with pytest.raises(
        FloatingPointError, match=r"task 'det', term 'loss_obj' is (nan|inf) at step 4; the batch was 7\.jpg"
    ):
        losses.to_host(3)
