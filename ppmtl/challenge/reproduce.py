"""The paper's test-time-augmentation tables as rows that can be run on any config, weights and data."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.predict.evaluate import Dataset, Evaluation, evaluate
from ppmtl.predict.pipeline import Backend
from ppmtl.tasks.base import Task, TestTimeAugmentation

UNKNOWN = "the paper's number for this row is not among the project's sources"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: what is done.
        task_type: which task it is about.
        tta: the views; None = one plain view.
        settings: other attributes of the task, e.g. {"merge": "nms"}.
        paper: the paper's number as a fraction, or None.
        note: why ``paper`` is None, or what to know about it.
    """

    label: str
    task_type: str
    tta: TestTimeAugmentation | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: float | None = None
    note: str = UNKNOWN


def _rows(task_type: str, views: Sequence[tuple[str, TestTimeAugmentation | None, dict[str, Any]]]) -> list[Row]:
    return [Row(label, task_type, tta, settings) for label, tta, settings in views]


def _tta(scales: Sequence[float], flip: bool, snap: int = 1) -> TestTimeAugmentation:
    return TestTimeAugmentation(scales=tuple(scales), flip=flip, snap=snap)


# Detection sizes are given as factors of the config's own size: 1568 / 2048 and 2240 / 2048, so that the rows mean the same
# on small inputs; with the paper's config they are exactly 2048, 1568 and 2240.
_DET = (1.0, 0.765625, 1.09375)
TABLES: dict[str, list[Row]] = {
    "2": [
        Row("segmentation, mIoU", "segmentation", paper=0.671, note="list A of the leaderboard, with TTA"),
        Row("classification, Top-1", "classification"),
        Row("detection, mAP50", "detection"),
    ],
    "4": [
        Row("no TTA", "segmentation", paper=0.6565, note="measured on the authors' own split, not on list A"),
        *_rows("segmentation", [
            ("flip", _tta([1.0], True), {}),
            ("scales .9, 1.0, 1.2", _tta([0.9, 1.0, 1.2], False), {}),
            ("scales .9, 1.0, 1.2 + flip", _tta([0.9, 1.0, 1.2], True), {}),
            ("scales 1.0, 1.2, 1.6", _tta([1.0, 1.2, 1.6], False), {}),
            ("scales 1.0, 1.2, 1.6 + flip", _tta([1.0, 1.2, 1.6], True), {}),
            ("scales 1.0, 1.2, 1.6 + flip, logits averaged", _tta([1.0, 1.2, 1.6], True), {"average": "logits"}),
        ]),
    ],
    "5": _rows("classification", [
        ("no TTA", None, {}),
        ("flip", _tta([1.0], True), {}),
        ("scales 1.0, 1.2, 1.4", _tta([1.0, 1.2, 1.4], False, 32), {}),
        ("scales 1.0, 1.2, 1.4 + flip", _tta([1.0, 1.2, 1.4], True, 32), {}),
    ]),
    "6": _rows("detection", [
        ("no TTA", None, {}),
        ("flip, WBF", _tta([1.0], True, 32), {"merge": "wbf"}),
        ("three sizes, WBF", _tta(_DET, False, 32), {"merge": "wbf"}),
        ("three sizes + flip, NMS", _tta(_DET, True, 32), {"merge": "nms"}),
        ("three sizes + flip, WBF", _tta(_DET, True, 32), {"merge": "wbf"}),
    ]),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One row as it was measured, or the reason why it was not.

    Attributes:
        row: the row.
        value: the primary metric as a fraction; None = not run.
        seconds: per picture.
        views: how many views of a picture were shown.
        reason: why it was not run.
    """

    row: Row
    value: float | None = None
    seconds: float | None = None
    views: int = 1
    reason: str = ""


def run_table(
    rows: Sequence[Row],
    tasks: Mapping[str, Task],
    datasets: Mapping[str, Dataset],
    backend: Backend,
    *,
    limit: int | None = None,
    done: Callable[[Cell], object] = lambda _: None,
) -> list[Cell]:
    """Returns every row measured on the task's own data set; rows without a task or data say so instead.

    Args:
        rows: of one table.
        tasks: {name: task}; each row changes a copy.
        datasets: {task name: labelled data set}.
        backend: what runs the network.
        limit: only the first so many pictures; the result then is of those.
        done: called after each row, for progress.
    """
    cells = []
    for row in rows:
        name = next((n for n, t in tasks.items() if t.task_type == row.task_type and n in datasets), None)
        if name is None:
            cell = Cell(row, reason=f"not run: the config has no {row.task_type} task with a validation set")
        else:
            task = copy.copy(tasks[name])
            for attribute, value in row.settings.items():
                assert hasattr(task, attribute)
                setattr(task, attribute, value)
            if row.tta is not None:
                task.tta = row.tta
            result: Evaluation = evaluate(
                {name: task}, {name: datasets[name]}, backend, augment=row.tta is not None, limit=limit
            )
            metrics = result.metrics[name]
            size = datasets[name][0].size
            views = len(task.views(size, augment=row.tta is not None))
            cell = Cell(row, metrics.values[metrics.primary], result.seconds[name], views)
        cells.append(cell)
        done(cell)
    return cells


def markdown(table: str, cells: Sequence[Cell], source: str) -> str:
    """Returns a table as Markdown: paper, ours, difference, cost. Every number of "ours" comes from ``cells``."""
    lines = [
        f"### Table {table}",
        "",
        f"{source}",
        "",
        "| row | paper | ours | ours - paper | gain over the first row | views | s per picture |",
        "|---|---|---|---|---|---|---|",
    ]
    first = next((c.value for c in cells if c.value is not None), None)
    for cell in cells:
        paper = "unknown" if cell.row.paper is None else f"{cell.row.paper:.4f}"
        if cell.value is None:
            lines.append(f"| {cell.row.label} | {paper} | {cell.reason} | | | | |")
            continue
        gap = "" if cell.row.paper is None else f"{cell.value - cell.row.paper:+.4f}"
        gain = "" if table == "2" or first is None else f"{cell.value - first:+.4f}"
        lines.append(
            f"| {cell.row.label} | {paper} | {cell.value:.4f} | {gap} | {gain} | {cell.views} | {cell.seconds:.3f} |"
        )
    notes = {c.row.note for c in cells if c.row.paper is None} | {
        f"{c.row.label}: {c.row.note}" for c in cells if c.row.paper is not None
    }
    return "\n".join([*lines, "", *(f"* {note}" for note in sorted(notes))])


def to_json(table: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """Returns a table as plain values."""
    return {
        "table": table,
        "rows": [
            {
                "label": c.row.label,
                "task": c.row.task_type,
                "paper": c.row.paper,
                "ours": c.value,
                "seconds_per_picture": c.seconds,
                "views": c.views,
                "reason": c.reason,
            }
            for c in cells
        ],
    }


def plot(tables: Mapping[str, Sequence[Cell]], path: Path) -> None:
    """Draws gain over the first row against cost, one panel per table."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(5 * len(tables), 5), layout="constrained")
    for axes, (name, cells) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        for cell in cells:
            if cell.value is not None:
                axes.plot(cell.seconds, cell.value, "o", label=cell.row.label)
        axes.set(xlabel="seconds per picture", ylabel="primary metric", title=f"Table {name}")
        if axes.lines:
            axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(path, dpi=110)
