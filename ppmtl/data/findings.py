"""What is wrong with files and annotations: one kind of finding for readers, submissions and checks of data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        place: a file, or a file and the entry in it.
        problem: what is wrong there, what is allowed and how to fix it.
        severity: an "error" stops what needs the data; a "warning" is worth a look.
    """

    place: str
    problem: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.place}: {self.problem}"


class DataError(ValueError):
    """Everything that is wrong with a data set, in ``findings``; the message shows the first ten."""

    def __init__(self, message: str, findings: Sequence[Finding]) -> None:
        super().__init__(message, list(findings))  # the same arguments, so that the error survives pickling
        self.message, self.findings = message, list(findings)

    def __str__(self) -> str:
        return f"{self.message}:\n{shorten([f'{f.place}: {f.problem}' for f in self.findings])}"


def shorten(items: Iterable[object], limit: int = 10) -> str:
    """The first ``limit`` items, one per line, and how many more there are."""
    every = list(items)
    more = [f"  ... and {len(every) - limit} more"] if len(every) > limit else []
    return "\n".join([f"  {item}" for item in every[:limit]] + more)
