"""The one writer of tables: Markdown for documents, aligned columns for a terminal, HTML for pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; ``heads`` are the column titles, every row has one cell per title."""
    lines = [list(heads), ["---"] * len(heads), *_cells(heads, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns for a terminal: the first to the left, the others to the right."""
    lines = [list(heads), *_cells(heads, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; all text is escaped."""
    lines = [[f"<td>{escape(cell)}</td>" for cell in row] for row in _cells(heads, rows)]
    titles = [f"<th>{escape(head)}</th>" for head in heads]
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table>\n<thead><tr>{''.join(titles)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cells(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[list[str]]:
    cells = [[str(cell) for cell in row] for row in rows]
    assert all(len(row) == len(heads) for row in cells), "every row needs one cell per title"
    return cells
