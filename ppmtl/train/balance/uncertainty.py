"""Uncertainty weighting: the tasks' weights are learned, each the inverse of the task's noise."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from ppmtl.train.balance._base import BalanceMethod


class Uncertainty(BalanceMethod):
    """Minimises ``exp(-s) L + s`` with one learned log variance s per task.

    This is twice the paper's ``L / (2 sigma^2) + log sigma`` for regression, with s = log sigma^2; docs/balancing.md says
    why one form serves all tasks. On a constant loss s goes to log L and the weight to 1 / L, so train.loss_weights only
    decides where the run starts.

    Costs one number per task; no time.

    Source: Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses", eq. 7 and 10.

    Args:
        initial_log_variance: s at the start [log variance]; 0 = a weight of 1.
    """

    def __init__(self, tasks: Sequence[str], *, initial_log_variance: float = 0.0) -> None:
        super().__init__(tasks)
        start = nn.initializer.Constant(initial_log_variance)
        parameters = {task: self.create_parameter([], default_initializer=start) for task in self.tasks}
        self.log_variances = nn.ParameterDict(parameters)

    def weigh(self, task: str, loss: paddle.Tensor) -> paddle.Tensor:
        """exp(-s) loss + s."""
        log_variance = self.log_variances[task]
        return paddle.exp(-log_variance) * loss + log_variance

    def factors(self) -> dict[str, float]:
        """{task: exp(-s)}."""
        return {task: float(paddle.exp(-self.log_variances[task])) for task in self.tasks}
