"""Did an evaluation measure what a config expects? For whoever wants to know whether a reproduction succeeded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ppmtl.predict.evaluate import Evaluation


@dataclass(frozen=True)
class Expectation:
    """One metric as it should be, and as it was measured.

    Attributes:
        name: "task.metric".
        value, tolerance: what the config expects, and how far off still counts, in units of the metric.
        measured: NaN if the evaluation has no such metric.
    """

    name: str
    value: float
    tolerance: float
    measured: float

    @property
    def met(self) -> bool:
        """Whether the measured value lies within the tolerance."""
        return abs(self.measured - self.value) <= self.tolerance  # False for NaN

    def __str__(self) -> str:
        got = "there is no such metric" if math.isnan(self.measured) else f"measured {self.measured:.4f}"
        return f"{self.name}: {got}, expected {self.value:g} +- {self.tolerance:g}: {'met' if self.met else 'NOT met'}"


def compare(result: Evaluation, expected: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[Expectation]:
    """Every expectation of ``expected``, {task: {metric: (value, tolerance)}}, with what was measured."""
    return [
        Expectation(f"{task}.{metric}", value, tolerance, _measured(result, task, metric))
        for task, metrics in expected.items()
        for metric, (value, tolerance) in metrics.items()
    ]


def text(rows: list[Expectation]) -> str:
    """One line per expectation, and one that says whether the reproduction succeeded."""
    missed = sum(not row.met for row in rows)
    verdict = f"NOT reproduced: {missed} of {len(rows)} expected values were not met" if missed else "reproduced"
    return "\n".join([*map(str, rows), f"eval.expected: {verdict}"])


def _measured(result: Evaluation, task: str, metric: str) -> float:
    return result.metrics[task].values.get(metric, math.nan) if task in result.metrics else math.nan
