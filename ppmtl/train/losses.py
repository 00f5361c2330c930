"""The loss terms of one optimizer step: weighted on the device, brought to the host in one transfer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

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
        self._batches: list[tuple[dict[str, paddle.Tensor], Source, int]] = []
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
        weighted: dict[str, paddle.Tensor] = {}
        seen: dict[str, paddle.Tensor] = {}
        for task, of_task in terms.items():
            weighted[task] = paddle.add_n([value * self._weights.get(task, 1.0) for value in of_task.values()])
            seen |= {f"{task}.{term}": value.detach() for term, value in of_task.items()}
            seen[f"loss_{task}"] = weighted[task].detach()
        self._batches.append((seen, source, batch_number))
        return weighted

    def to_host(self, step: int) -> None:
        """Fills ``of_tasks`` and ``numbers``.

        Raises:
            FloatingPointError: naming task, term, files and the 0-based ``step`` (+ 1) of a term that is not finite.
        """
        flat = [value.reshape([]) for seen, _, _ in self._batches for value in seen.values()]
        values = iter(paddle.stack(flat).astype("float32").numpy().tolist())
        for seen, source, number in self._batches:
            numbers = {name: next(values) for name in seen}
            for name, value in numbers.items():
                task, dot, term = name.partition(".")
                if not dot:
                    self.of_tasks[name.removeprefix("loss_")] += value
                elif not math.isfinite(value):
                    raise FloatingPointError(
                        f"task '{task}', term '{term}' is {value} at step {step + 1}; the batch was "
                        f"{', '.join(source.files(number))}. Lower optimizer.learning_rate or set optimizer.clip_norm, and "
                        "look at these files; the last checkpoint is untouched"
                    )
            self.numbers.append(numbers)
