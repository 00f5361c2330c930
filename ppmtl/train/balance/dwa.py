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

    K is the number of tasks. In the first two epochs (of train.steps_per_epoch) there is no ratio and every weight is 1; a
    task without a loss in one of the two epochs counts as unchanged (r = 1). The buffers are float64, so that resuming
    within an epoch is exact. Costs no time.

    Source: Liu, Johns and Davison 2019, "End-to-End Multi-Task Learning with Attention", eq. 7; temperature 2 is theirs.

    Args:
        temperature: of the softmax over the ratios [factor]; large = equal weights, small = all weight to the slowest task.
    """

    def __init__(self, tasks: Sequence[str], *, temperature: Annotated[float, Gt(0)] = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        for name, value in (("sums", 0.0), ("counts", 0.0), ("last_means", 0.0), ("weights", 1.0)):
            self.register_buffer(name, paddle.full([len(self.tasks)], value, "float64"))

    def weigh(self, task: str, loss: paddle.Tensor) -> paddle.Tensor:
        """The task's weight times its loss."""
        return loss * self.weights[self.tasks.index(task)].astype(loss.dtype)

    def after_step(self, losses: Mapping[str, float], step: int, steps_per_epoch: int) -> None:
        """Adds up the losses; at the end of an epoch makes new weights of them."""
        sums = self.sums.numpy() + [losses.get(task, 0.0) for task in self.tasks]
        counts = self.counts.numpy() + [task in losses for task in self.tasks]
        if (step + 1) % steps_per_epoch == 0:
            last, means = self.last_means.numpy(), sums / np.maximum(counts, 1)
            # A mean of 0 stands for "no loss seen": no loss of ours is exactly 0
            ratios = np.divide(means, last, out=np.ones_like(means), where=(last > 0) & (means > 0))
            powers = np.exp((ratios - ratios.max()) / self.temperature)
            self.weights.set_value(len(self.tasks) * powers / powers.sum())
            self.last_means.set_value(means)
            sums, counts = np.zeros_like(sums), np.zeros_like(counts)
        self.sums.set_value(sums)
        self.counts.set_value(counts)

    def factors(self) -> dict[str, float]:
        """{task: its weight in this epoch}."""
        return dict(zip(self.tasks, self.weights.numpy().tolist(), strict=True))
