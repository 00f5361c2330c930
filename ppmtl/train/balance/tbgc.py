"""TBGC: every task's gradient reaches the backbone clipped on its own and with the same norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Gt

from ppmtl.config import suggestion
from ppmtl.train.balance._base import BalanceMethod, Gradients, inner_products, weighted_sum


class Tbgc(BalanceMethod):
    """Clips each task's gradient in the backbone, rescales all of them to one norm, then adds up.

    In the backbone train.loss_weights cancels out (it still weighs the heads, which keep their gradients). A task without a
    gradient, or with one of zero, is left out, also of the mean. One task alone with the default settings gets its plain
    gradient.

    The paper's abstract, all that was available, does not say which norm. The mean is our choice: it leaves the size of
    the sum, and so the learning rate and optimizer.clip_norm, about where they were.

    Costs one copy of the backbone's gradients per task plus one for the result, and T (T + 1) / 2 inner products.

    Source: Zhang and Pan 2023, "TBGC: Task-level Backbone-Oriented Gradient Clip", arXiv 2307.03465.

    Args:
        norm: the [norm] that all get: "mean" of the tasks' (clipped) norms, a task's name for that task's
            (the mean in a step that does not have it), or a number.
        clip_norm: each task's gradient in the backbone is first clipped to this [norm]; None = no clipping. It bounds what an
            outlier does to the mean; without effect where ``norm`` is a number.
    """

    separate = True
    equal_norms = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        norm: Annotated[float, Gt(0)] | str = "mean",
        clip_norm: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__(tasks)
        allowed = ("mean", *self.tasks)
        if isinstance(norm, str) and norm not in allowed:
            raise ValueError(f"train.balance.norm: got {norm!r}{suggestion(norm, allowed)}, or a positive number")
        self.norm, self.clip_norm = norm, clip_norm

    def combine(self, gradients: Mapping[str, Gradients], seed: Sequence[int]) -> Gradients:  # noqa: ARG002
        """The sum of the rescaled gradients."""
        norms = np.sqrt(np.diagonal(inner_products(gradients).sum(axis=0))).tolist()
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        clipped = {task: min(norm, limit) for task, norm in zip(gradients, norms, strict=True) if norm > 0}
        mean = sum(clipped.values()) / max(len(clipped), 1)
        target = clipped.get(self.norm, mean) if isinstance(self.norm, str) else self.norm
        return weighted_sum(gradients, [target / norm if norm > 0 else 1.0 for norm in norms])
