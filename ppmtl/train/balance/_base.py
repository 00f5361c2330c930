"""The interface of task balancing, and the sums and inner products that methods on gradients are made of."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

import numpy as np
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
        """What is differentiated in place of the task's 0-D loss, which train.loss_weights has weighted."""
        return loss

    def combine(self, gradients: Mapping[str, Gradients], seed: Sequence[int]) -> Gradients:
        """The shared gradients of the step.

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


@paddle.no_grad()
def inner_products(gradients: Mapping[str, Gradients]) -> np.ndarray:
    """Inner products of the T tasks' gradients for each of P parameters: (P, T, T) float64; None counts as zero.

    Summed over any set of parameters this is the Gram matrix of the joined vectors: norms are the roots of its diagonal,
    and every projection that PCGrad makes can be computed from it. All numbers are fetched from the device at once.
    """
    found: dict[tuple[int, int, int], paddle.Tensor] = {}
    of_parameters = list(zip(*gradients.values(), strict=True))
    for index, of_parameter in enumerate(of_parameters):
        flat = [None if g is None else g.flatten().astype("float32") for g in of_parameter]
        for a, first in enumerate(flat):
            for b, second in enumerate(flat[: a + 1]):
                if first is not None and second is not None:
                    found[index, a, b] = paddle.dot(first, second)
    products = np.zeros((len(of_parameters), len(gradients), len(gradients)))
    if found:
        index, a, b = np.array(list(found)).T
        products[index, a, b] = products[index, b, a] = paddle.stack(list(found.values())).numpy()
    return products


@paddle.no_grad()
def weighted_sum(gradients: Mapping[str, Gradients], factors: Sequence[float]) -> Gradients:
    """The sum over tasks of factor * gradient, parameter by parameter; None where no task has a gradient.

    A factor of 1 multiplies nothing, so that all ones give the same bits as adding up.
    """
    total: Gradients = []
    for of_parameter in zip(*gradients.values(), strict=True):
        pairs = zip(of_parameter, factors, strict=True)
        parts = [gradient if factor == 1 else gradient * factor for gradient, factor in pairs if gradient is not None]
        total.append(functools.reduce(operator.add, parts) if parts else None)
    return total
