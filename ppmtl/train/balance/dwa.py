"""Dynamic weight average: a task whose loss falls more slowly than the others' gets more weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import paddle
from annotated_types import Gt

from ppmtl.train.balance._base import BalanceMethod


class Dwa(BalanceMethod):
    """Weighs tasks by ``K softmax(r / temperature)``, r = mean loss of the last epoch / mean loss of the one before.

    K is the number of tasks, so the weights add up to K. In the first two epochs there is no ratio and every weight is 1.
    Only the ratio counts: a task's scale, and with it train.loss_weights, stays what it was. An epoch is
    train.steps_per_epoch; a task without a loss in one of the two epochs counts as unchanged (r = 1).

    What it remembers (sums, counts, last epoch's means, weights: 4 numbers per task) is saved in every checkpoint, in
    float64, so resuming within an epoch is exact. Costs no time.

    Source: Liu, Johns and Davison 2019, "End-to-End Multi-Task Learning with Attention", eq. 7; temperature 2 is theirs.

    Args:
        tasks: the tasks' names.
        temperature: large = equal weights, small = all weight to the slowest task.
    """

    def __init__(self, tasks: Sequence[str], *, temperature: Annotated[float, Gt(0)] = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        for name, value in (("sums", 0.0), ("counts", 0.0), ("last_means", 0.0), ("weights", 1.0)):
            self.register_buffer(name, paddle.full([len(self.tasks)], value, "float64"))

    def weigh(self, task: str, loss: paddle.Tensor) -> paddle.Tensor:
        """Returns the task's weight times its loss."""
        return loss * self.weights[self.tasks.index(task)].astype(loss.dtype)

    def after_step(self, losses: Mapping[str, float], step: int, steps_per_epoch: int) -> None:
        """Adds up the losses; at the end of an epoch makes new weights of them."""
        sums, counts = self.sums.numpy(), self.counts.numpy()
        for index, task in enumerate(self.tasks):
            if task in losses:
                sums[index] += losses[task]
                counts[index] += 1
        if (step + 1) % steps_per_epoch == 0:
            means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
            last = self.last_means.numpy()
            self.weights.set_value(self._weights(means, last))
            self.last_means.set_value(means)
            sums[:], counts[:] = 0, 0
        self.sums.set_value(sums)
        self.counts.set_value(counts)

    def _weights(self, means: np.ndarray, last: np.ndarray) -> np.ndarray:
        # A mean of 0 says "not seen": no loss of ours reaches exactly 0, and dividing by it would.
        ratios = np.divide(means, last, out=np.ones_like(means), where=(last > 0) & (means > 0))
        powers = np.exp((ratios - ratios.max()) / self.temperature)
        return len(self.tasks) * powers / powers.sum()

    def factors(self) -> dict[str, float]:
        """Returns {task: its weight in this epoch}."""
        return dict(zip(self.tasks, self.weights.numpy().tolist(), strict=True))
