"""What a comparison says, and how it looks in a table."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np


class NotRun(Exception):
    """A reference cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """One compared quantity.

    Attributes:
        component: what of ours was compared.
        quantity: which of its numbers, with the unit.
        reference: package and version, and what had to be mended in it to run at all.
        difference: the largest one; None when nothing was compared.
        tolerance: largest difference that passes.
        reason: why the tolerance is what it is, or why nothing was compared.
    """

    component: str
    quantity: str
    reference: str
    difference: float | None
    tolerance: float
    reason: str

    @property
    def verdict(self) -> str:
        """Returns "equal", "DIFFERENT" or "not run". NaN is a difference; a missing comparison never passes."""
        if self.difference is None:
            return "not run"
        return "equal" if self.difference <= self.tolerance else "DIFFERENT"


def not_run(component: str, reference: str, reason: str) -> Outcome:
    """Returns the row of a comparison that could not be made."""
    return Outcome(component, "", reference, None, 0.0, reason)


def need(module: str, package: str) -> Any:
    """Returns an imported reference module.

    Args:
        module: dotted name.
        package: the distribution's name, for the message.

    Raises:
        NotRun: if it, or something that it imports, is not installed here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotRun(f"{package} cannot be imported: {type(error).__name__}: {error}") from error


def release(package: str) -> str:
    """Returns "name version" of an installed distribution, or its name alone."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def relative(ours: Iterable[np.ndarray], theirs: Iterable[np.ndarray]) -> float:
    """Returns the largest difference as a share of the largest magnitude of its array; inf when shapes differ."""
    worst, count = 0.0, 0
    for mine, reference in zip(ours, theirs, strict=True):
        count += 1
        if mine.shape != reference.shape:
            return float("inf")
        scale = float(np.abs(reference).max()) or 1.0
        difference = float(np.abs(mine.astype(np.float64) - reference).max()) / scale
        worst = difference if difference != difference else max(worst, difference)
        if worst != worst:
            return worst
    assert count, "nothing was compared"
    return worst


def seeded(key: str, shape: Sequence[int]) -> np.ndarray:
    """Returns standard normal float32 numbers that depend on the name alone, so both sides can be given the same."""
    return np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).randn(*shape).astype(np.float32)


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns a Markdown table."""
    rows = [["component", "compared", "reference", "largest difference", "tolerance", "verdict", "why this tolerance"]]
    for o in outcomes:
        difference = "-" if o.difference is None else f"{o.difference:.2g}"
        tolerance = "-" if o.difference is None else f"{o.tolerance:.2g}"
        rows.append([o.component, o.quantity or "-", o.reference, difference, tolerance, o.verdict, o.reason])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_record(outcome: Outcome) -> dict[str, Any]:
    """Returns the row for JSON; a difference that is not finite becomes text."""
    record = asdict(outcome) | {"verdict": outcome.verdict}
    if outcome.difference is not None and not np.isfinite(outcome.difference):
        record["difference"] = str(outcome.difference)
    return record
