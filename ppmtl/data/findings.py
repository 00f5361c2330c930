"""What is wrong with files and annotations: one kind of finding for readers, submissions and checks of data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        place: a file, or a file and the entry in it.
        problem: what is wrong there, what is allowed and how to fix it.
        severity: an "error" stops what needs the data; a "warning" is worth a look; a "note" only says what is there.
        kind: a short name of what is wrong that stays the same; ``ppmtl/doctor/kinds.py`` lists them.
    """

    place: str
    problem: str
    severity: Severity = "error"
    kind: str = "other"

    def __str__(self) -> str:
        return f"{self.severity}: {self.place}: {self.problem}"

    @classmethod
    def of(cls, place: str, error: ValueError) -> Finding:
        """The error that reading ``place`` raised; a FileError says itself which file it was."""
        if isinstance(error, FileError):
            return cls(error.path, error.problem, "error", error.kind)
        return cls(place, str(error).removeprefix(f"{place}: "))


class FileError(ValueError):
    """One file that cannot be used; ``kind`` as in ``Finding``."""

    def __init__(self, path: str | Path, problem: str, kind: str) -> None:
        super().__init__(path, problem, kind)  # the same arguments, so that the error survives pickling
        self.path, self.problem, self.kind = str(path), problem, kind

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class DataError(ValueError):
    """Everything that is wrong with a data set, in ``findings``; the message shows the first ten."""

    def __init__(self, where: str, problem: str, findings: Sequence[Finding]) -> None:
        super().__init__(where, problem, list(findings))  # the same arguments, so that the error survives pickling
        self.where, self.problem, self.findings = where, problem, list(findings)

    def __str__(self) -> str:
        lines = [f"{f.place}: {f.problem}".removeprefix(f"{self.where}: ") for f in self.findings]
        return f"{self.where}: {self.problem}:\n{shorten(lines)}"


_COLLECTED: ContextVar[list[Finding] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Finding]]:
    """Inside, what :func:`refuse` is given is collected instead of raised: the data doctor wants all of it at once."""
    findings: list[Finding] = []
    token = _COLLECTED.set(findings)
    try:
        yield findings
    finally:
        _COLLECTED.reset(token)


def refuse(where: str | Path, problem: str, findings: Sequence[Finding]) -> None:
    """Raises DataError; inside :func:`collecting` it returns, and the caller goes on without the wrong entries."""
    collected = _COLLECTED.get()
    if collected is None:
        raise DataError(str(where), problem, findings)
    collected.extend(findings)


def shorten(items: Iterable[object], limit: int = 10) -> str:
    """The first ``limit`` items, one per line, and how many more there are."""
    every = list(items)
    more = [f"  ... and {len(every) - limit} more"] if len(every) > limit else []
    return "\n".join([f"  {item}" for item in every[:limit]] + more)


def shortened(value: object, limit: int = 80) -> str:
    """What a message can show of a value from a file: its first ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
