"""The loss terms of one optimizer step: weighted on the device, brought to the host in one transfer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import paddle

from ppmtl.data.source import Source


class StepLosses:
    """Collects the terms of every batch of a step.

    Args:
        weights: {task: factor}; tasks not named count 1.

    Attributes:
        of_tasks: {task: its weighted loss, summed over the batches of the step}; filled by :meth:`to_host`.
        numbers: {"<task>.<term>": value, "loss_<task>": weighted sum of the terms} of every batch, for the log; likewise.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._batches: list[tuple[Mapping[str, Mapping[str, paddle.Tensor]], Source, int]] = []
        self._weighted: list[dict[str, paddle.Tensor]] = []
        self.of_tasks: dict[str, float] = defaultdict(float)
        self.numbers: list[dict[str, float]] = []

    def add(
        self, terms: Mapping[str, Mapping[str, paddle.Tensor]], source: Source, batch_number: int
    ) -> dict[str, paddle.Tensor]:
        """Takes one batch's terms and returns {task: its loss}, the weighted sum of its terms (0-D).

        Args:
            terms: {task: {term: 0-D float32}}, as the model returns them.
            source: where the batch came from, and ...
            batch_number: ... its place in that stream, for the error message.
        """
        weighted = {
            task: paddle.add_n([value * self._weights.get(task, 1.0) for value in of_task.values()])
            for task, of_task in terms.items()
        }
        self._batches.append((terms, source, batch_number))
        self._weighted.append({task: loss.detach() for task, loss in weighted.items()})
        return weighted

    def to_host(self, step: int) -> None:
        """Fills ``of_tasks`` and ``numbers``.

        Raises:
            FloatingPointError: naming task, term, files and the 0-based ``step`` (+ 1) of a term that is not finite.
        """
        flat = [
            value.detach()
            for (terms, _, _), weighted in zip(self._batches, self._weighted, strict=True)
            for task, of_task in terms.items()
            for value in (*of_task.values(), weighted[task])
        ]
        values = iter(paddle.stack([value.reshape([]) for value in flat]).astype("float32").numpy().tolist())
        for terms, source, number in self._batches:
            numbers: dict[str, float] = {}
            for task, of_task in terms.items():
                found = {f"{task}.{term}": next(values) for term in of_task}
                for name, value in found.items():
                    if not np.isfinite(value):
                        raise FloatingPointError(
                            f"task '{task}', term '{name.removeprefix(task + '.')}' is {value} at step {step + 1}; the batch "
                            f"was {', '.join(source.files(number))}. Lower optimizer.learning_rate or set "
                            "optimizer.clip_norm, and look at these files; the last checkpoint is untouched"
                        )
                numbers |= found
                numbers[f"loss_{task}"] = next(values)
                self.of_tasks[task] += numbers[f"loss_{task}"]
            self.numbers.append(numbers)
        self._batches.clear()
        self._weighted.clear()
