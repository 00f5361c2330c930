"""The interface of task balancing: all that a method may change about a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paddle
from paddle import nn

Gradients = list[paddle.Tensor | None]
"""One entry per shared (backbone) parameter, in the model's order; None where a task did not reach it."""


class BalanceMethod(nn.Layer):
    """Weighs tasks against each other. A subclass changes the losses (``weigh``) or the shared gradients (``combine``).

    It is a layer: what it learns are parameters (trained by the run's optimizer, without weight decay), what it remembers
    are buffers. Both are saved in every checkpoint and averaged over processes like the model's.

    Args:
        tasks: the tasks' names, in the order in which they are run.
    """

    separate = False  # True: ``combine`` is called; every task's shared gradients are kept apart, one copy per task
    equal_norms = False  # True: ``combine`` gives every task the same norm, so that none can starve

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def weigh(self, task: str, loss: paddle.Tensor) -> paddle.Tensor:  # noqa: ARG002
        """Returns what is differentiated in place of the task's 0-D loss, which train.loss_weights has weighted."""
        return loss

    def combine(self, gradients: Mapping[str, Gradients], seed: Sequence[int]) -> Gradients:
        """Returns the shared gradients of the step.

        Args:
            gradients: {task: its shared gradients}, averaged over micro-batches and processes, so that the result is
                the same on every process and equals one process with the joined batch.
            seed: of this step, the same on every process; for methods that draw an order.
        """
        raise NotImplementedError

    def after_step(self, losses: Mapping[str, float], step: int, steps_per_epoch: int) -> None:
        """Notes the losses of 0-based ``step``: {task: weighted loss}, averaged over processes."""

    def factors(self) -> dict[str, float]:
        """{task: what its loss is multiplied by now}, for the log; empty for a method that weighs no losses."""
        return {}
