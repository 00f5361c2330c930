"""Findings put together by what they are and where: for a terminal and as JSON. The page is in ``page.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ppmtl import tables
from ppmtl.data.findings import Finding, Severity
from ppmtl.doctor.kinds import KINDS

_ORDER: tuple[Severity, ...] = ("error", "warning", "note")
_EXAMPLES = 20


@dataclass(frozen=True)
class Entry:
    """All findings of one kind in one data set.

    Attributes:
        severity: an "error" means that training should not start.
        kind: its short name.
        where: the data set, or the part of the run.
        count: of findings.
        examples: the first of them, (place, problem).
        remedy: what to do.
    """

    severity: Severity
    kind: str
    where: str
    count: int
    examples: tuple[tuple[str, str], ...]
    remedy: str


@dataclass(frozen=True)
class Table:
    """Numbers about the data; ``bars`` are the columns to draw as bars on a page."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    bars: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """What the doctor found, worst first, and numbers about the data."""

    entries: tuple[Entry, ...]
    tables: tuple[Table, ...] = ()

    def count(self, severity: Severity) -> int:
        """The number of findings of one severity."""
        return sum(entry.count for entry in self.entries if entry.severity == severity)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"errors": self.count("error"), "warnings": self.count("warning"), "notes": self.count("note"),
                "findings": [asdict(entry) for entry in self.entries],
                "tables": [asdict(table) for table in self.tables]}  # fmt: skip

    def text(self, examples: int = 3) -> str:
        """For a terminal: tables, then every entry with some examples, then the sum."""
        parts = [f"{table.title}\n{tables.columns(table.heads, table.rows)}" for table in self.tables[:1]]
        parts += [entry_text(entry, examples) for entry in self.entries]
        sums = ", ".join(f"{self.count(severity)} {severity}{'s' * (self.count(severity) != 1)}" for severity in _ORDER)
        verdict = "training should not start" if self.count("error") else "training can start"
        return "\n\n".join([*parts, f"{sums}: {verdict}"])


def entry_text(entry: Entry, examples: int) -> str:
    """Three or more lines: what and where, the remedy, the first examples."""
    lines = [f"{entry.severity} {entry.kind}, {entry.where}: {entry.count} x. {entry.remedy}"]
    lines += [f"  {place}: {problem}" for place, problem in entry.examples[:examples]]
    more = entry.count - min(examples, len(entry.examples))
    return "\n".join([*lines, *([f"  ... and {more} more"] if more else [])])


def group(findings: Iterable[tuple[str, Finding]]) -> tuple[Entry, ...]:
    """Entries of (where, finding) pairs, the worst first, otherwise in the given order."""
    groups: dict[tuple[Severity, str, str], list[Finding]] = {}
    for where, finding in findings:
        groups.setdefault((finding.severity, finding.kind, where), []).append(finding)
    entries = [
        Entry(severity, kind, where, len(found), tuple((f.place, f.problem) for f in found[:_EXAMPLES]),
              KINDS.get(kind, KINDS["other"]))
        for (severity, kind, where), found in groups.items()
    ]  # fmt: skip
    return tuple(sorted(entries, key=lambda entry: _ORDER.index(entry.severity)))
