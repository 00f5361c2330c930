"""The interface of task balancing: what a method may change about a step, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paddle
from paddle import nn

Gradients = list[paddle.Tensor | None]
"""One entry per shared (backbone) parameter, in the model's order; None where a task did not reach it."""


class BalanceMethod(nn.Layer):
    """Weighs tasks against each other. A subclass changes the losses (``weigh``) or the shared gradients (``combine``).

    It is a layer, so that what it learns are parameters (trained by the run's optimizer, without weight decay) and what it
    remembers are buffers; both are saved in every checkpoint and averaged over processes like the model's.

    Args:
        tasks: the tasks' names, in the order in which they are run.
    """

    separate = False
    """Whether ``combine`` is wanted: every task's shared gradients are then kept apart, one copy of them per task."""
    equal_norms = False
    """Whether ``combine`` gives every task the same norm, so that none can starve."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def weigh(self, task: str, loss: paddle.Tensor) -> paddle.Tensor:  # noqa: ARG002
        """Returns what is differentiated instead of the task's (already loss_weights-weighted, 0-D) loss."""
        return loss

    def combine(self, gradients: Mapping[str, Gradients], seed: Sequence[int]) -> Gradients:  # noqa: ARG002
        """Returns the shared gradients of the step.

        Args:
            gradients: {task: its shared gradients}, already averaged over micro-batches and processes, so that the
                result is the same on every process and equals one process with the joined batch.
            seed: of this step, the same on every process; for methods that draw an order.
        """
        raise AssertionError("only called when separate")

    def after_step(self, losses: Mapping[str, float], step: int, steps_per_epoch: int) -> None:
        """Takes note of the losses of 0-based ``step``: {task: weighted loss}, averaged over processes."""

    def factors(self) -> dict[str, float]:
        """Returns {task: what its loss is multiplied by now}, for the log; empty for a method that weighs no losses."""
        return {}
