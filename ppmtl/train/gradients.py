"""The gradients of one optimizer step, kept apart by task where something wants them apart."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from ppmtl.train import distributed
from ppmtl.train.balance._base import BalanceMethod, Gradients, weighted_sum
from ppmtl.train.optim import clip_task

SHARED = "backbone."  # what every task's gradient reaches; the rest of the model belongs to one head


class TaskGradients:
    """Takes every task's gradients out of ``.grad`` as they appear and puts the step's gradient back in the end.

    Costs one copy of the backbone's gradients per task, which is why the loop uses it only for a balancing method that
    needs it, for clipping by task, and in the steps of a diagnosis.
    """

    def __init__(self, model: nn.Layer) -> None:
        named = [(name, p) for name, p in model.named_parameters() if not p.stop_gradient]
        self.shared_names = [name for name, _ in named if name.startswith(SHARED)]
        self._parameters = [p for _, p in sorted(named, key=lambda pair: not pair[0].startswith(SHARED))]
        self._kept: dict[str, Gradients] = {}

    @paddle.no_grad()
    def take(self, task: str) -> None:
        """Moves what the last backward left behind to ``task``, adding to what it has from earlier micro-batches."""
        kept = self._kept.setdefault(task, [None] * len(self._parameters))
        for index, parameter in enumerate(self._parameters):
            gradient, before = parameter.grad, kept[index]
            if gradient is None:
                continue
            kept[index] = gradient.clone() if before is None else before.add_(gradient)
            parameter.clear_gradient(False)  # positional: Paddle ignores the keyword here and would leave zeros

    @paddle.no_grad()
    def average(self) -> None:
        """Averages over all processes in one fused all-reduce."""
        distributed.average_tensors([g for gradients in self._kept.values() for g in gradients if g is not None])

    @paddle.no_grad()
    def shared(self, loss_scale: float = 1.0) -> dict[str, Gradients]:
        """{task: its gradients of the backbone}, in the order of ``shared_names``, divided by ``loss_scale``."""
        count = len(self.shared_names)
        return {task: _times(gradients[:count], 1 / loss_scale) for task, gradients in self._kept.items()}

    @paddle.no_grad()
    def put_back(
        self, balance: BalanceMethod | None, seed: Sequence[int], max_norm: float | None, loss_scale: float
    ) -> None:
        """Clips every task's gradient, combines them, writes the result into ``.grad`` and forgets them.

        Args:
            balance: combines the backbone's gradients if it wants to; otherwise they add up in the order of the tasks,
                which is what they do without this class, bit for bit.
            seed: of this step, for methods that draw an order.
            max_norm: of each task's gradient over backbone and head; None = no clipping.
            loss_scale: that the gradients still carry (mixed precision); 1 = none.
        """
        if max_norm is not None:
            for gradients in self._kept.values():
                clip_task(gradients, max_norm * loss_scale)
        combined: Gradients = []
        if balance is not None and balance.separate:
            combined = _times(
                balance.combine(self.shared(loss_scale), seed), loss_scale
            )  # the scaler divides once more
        rest = {task: gradients[len(combined) :] for task, gradients in self._kept.items()}
        combined = combined + weighted_sum(rest, [1] * len(rest))
        for parameter, gradient in zip(self._parameters, combined, strict=True):
            if gradient is not None:
                parameter.grad = gradient
        self._kept.clear()


def _times(gradients: Gradients, factor: float) -> Gradients:
    return gradients if factor == 1 else [None if gradient is None else gradient * factor for gradient in gradients]
