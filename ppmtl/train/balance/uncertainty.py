"""Uncertainty weighting: the tasks' weights are learned, each the inverse of the task's noise."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from ppmtl.train.balance._base import BalanceMethod


class Uncertainty(BalanceMethod):
    """Minimises ``exp(-s) L + s`` with one learned log variance s per task.

    The paper writes ``L / (2 sigma^2) + log sigma`` for a Gaussian (regression) likelihood and ``L / sigma^2 + log sigma``
    for a softmax one. With s = log sigma^2 our form is twice the first: same minimum, and s = 0 starts from the weights of
    train.loss_weights. The second would only double the weight that a task settles at; here most tasks add up terms of
    both kinds, so one form serves all. On a constant loss s goes to log L and the weight to 1 / L: train.loss_weights
    cancels out in the end and only decides where the run starts. AdamW moves s by about one learning rate per step, so a
    run whose learning rates add up to less than 1 barely changes the weights.

    Costs one number per task; no time.

    Source: Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses", eq. 7 and 10.

    Args:
        tasks: the tasks' names.
        initial_log_variance: s at the start; 0 = a weight of 1.
    """

    def __init__(self, tasks: Sequence[str], *, initial_log_variance: float = 0.0) -> None:
        super().__init__(tasks)
        start = nn.initializer.Constant(initial_log_variance)
        self.log_variances = nn.ParameterDict(
            {task: self.create_parameter([], default_initializer=start) for task in self.tasks}
        )

    def weigh(self, task: str, loss: paddle.Tensor) -> paddle.Tensor:
        """exp(-s) loss + s."""
        log_variance = self.log_variances[task]
        return paddle.exp(-log_variance) * loss + log_variance

    def factors(self) -> dict[str, float]:
        """{task: exp(-s)}."""
        return {task: float(paddle.exp(-self.log_variances[task])) for task in self.tasks}
