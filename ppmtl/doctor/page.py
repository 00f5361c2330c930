"""The report as one self-contained HTML page; every text goes in as text, so a file name cannot become markup."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ppmtl import html_page, tables
from ppmtl.doctor.report import Entry, Report, Table

_BAR = 20  # letters of the longest bar


def page(report: Report, title: str) -> str:
    """The page; ``title`` is the config's name."""
    verdict = "Training should not start." if report.count("error") else "Training can start."
    sums = ", ".join(f"{report.count(s)} {s}{'s' * (report.count(s) != 1)}" for s in ("error", "warning", "note"))
    parts = [f"<p>{verdict} {sums}.</p>", "<h2>Findings</h2>", *map(_entry, report.entries)]
    for table in report.tables:
        html = tables.html(table.heads, _rows(table))
        parts += [f"<h2>{escape(table.title)}</h2>", html_page.block("scroll", [html])]
    return html_page.page(f"Data check: {title}", parts)


def _entry(entry: Entry) -> str:
    """What and where, the remedy, and examples: of errors in full, of the rest on request."""
    title = f"{entry.severity}: {entry.kind}, {entry.where}, {entry.count} x"
    examples = html_page.block("facts", [tables.html(("where", "what"), entry.examples)])
    shown = f"{len(entry.examples)} of {entry.count}"
    return (
        f"<h3>{escape(title)}</h3>\n<p>{escape(entry.remedy)}</p>\n"
        f"{examples if entry.severity == 'error' else html_page.folded(shown, examples)}"
    )


def _rows(table: Table) -> Iterator[list[str]]:
    largest = {column: max((float(row[column]) for row in table.rows), default=0.0) or 1.0 for column in table.bars}
    for row in table.rows:
        bars = {column: "\u2586" * round(_BAR * float(row[column]) / largest[column]) + " " for column in largest}
        yield [bars.get(column, "") + _shown(value) for column, value in enumerate(row)]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
