"""The paper's tables as rows that can be run on any config, weights and data."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppmtl.predict.evaluate import Dataset, evaluate
from ppmtl.predict.pipeline import Backend
from ppmtl.tables import markdown
from ppmtl.tasks.base import Task, TestTimeAugmentation


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
    settings: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None
    note: str = "the paper's number for this row is not among the project's sources"


@dataclass(frozen=True)
class Cell:
    """One row as it was measured, or the reason why it was not.

    Attributes:
        row: the row.
        ours: the primary metric as a fraction; None = not run.
        seconds: per image.
        views: how many views of an image were shown.
        reason: why it was not run.
    """

    row: Row
    ours: float | None = None
    seconds: float | None = None
    views: int = 1
    reason: str = ""


def _row(label: str, task_type: str, scales: Sequence[float], flip: bool, snap: int = 1, **settings: str) -> Row:
    return Row(label, task_type, TestTimeAugmentation(scales=tuple(scales), flip=flip, snap=snap), settings)


_SEG, _CLS, _DET = "segmentation", "classification", "detection"
# Detection sizes are given as factors of the config's own size: 1568 / 2048 and 2240 / 2048, so that the rows mean the same
# on small inputs; with the paper's config they are exactly 2048, 1568 and 2240.
_SIZES = (1.0, 0.765625, 1.09375)
TABLES: dict[str, list[Row]] = {
    "2": [
        Row("segmentation, mIoU", _SEG, paper=0.671, note="list A of the leaderboard, with TTA"),
        Row("classification, Top-1", _CLS),
        Row("detection, mAP50", _DET),
    ],
    "4": [
        Row("no TTA", _SEG, paper=0.6565, note="measured on the authors' own split, not on list A"),
        _row("flip", _SEG, [1.0], True),
        _row("scales .9, 1.0, 1.2", _SEG, [0.9, 1.0, 1.2], False),
        _row("scales .9, 1.0, 1.2 + flip", _SEG, [0.9, 1.0, 1.2], True),
        _row("scales 1.0, 1.2, 1.6", _SEG, [1.0, 1.2, 1.6], False),
        _row("scales 1.0, 1.2, 1.6 + flip", _SEG, [1.0, 1.2, 1.6], True),
        _row("scales 1.0, 1.2, 1.6 + flip, logits averaged", _SEG, [1.0, 1.2, 1.6], True, average="logits"),
    ],
    "5": [
        Row("no TTA", _CLS),
        _row("flip", _CLS, [1.0], True),
        _row("scales 1.0, 1.2, 1.4", _CLS, [1.0, 1.2, 1.4], False, 32),
        _row("scales 1.0, 1.2, 1.4 + flip", _CLS, [1.0, 1.2, 1.4], True, 32),
    ],
    "6": [
        Row("no TTA", _DET),
        _row("flip, WBF", _DET, [1.0], True, 32, merge="wbf"),
        _row("three sizes, WBF", _DET, _SIZES, False, 32, merge="wbf"),
        _row("three sizes + flip, NMS", _DET, _SIZES, True, 32, merge="nms"),
        _row("three sizes + flip, WBF", _DET, _SIZES, True, 32, merge="wbf"),
    ],
}


def run_row(
    row: Row, tasks: Mapping[str, Task], datasets: Mapping[str, Dataset], backend: Backend, limit: int | None = None
) -> Cell:
    """Measures a row on its task's own data set, with a copy of the task; without task or data the cell says so.

    Args:
        row: of one table.
        tasks: {name: task}.
        datasets: {task name: labelled data set}.
        backend: what runs the network.
        limit: only the first so many images; the result then is of those.
    """
    name = next((n for n, t in tasks.items() if t.task_type == row.task_type and n in datasets), None)
    if name is None:
        return Cell(row, reason=f"not run: the config has no {row.task_type} task with a validation set")
    task, augment = copy.copy(tasks[name]), row.tta is not None
    for attribute, value in row.settings.items():
        assert hasattr(task, attribute)
        setattr(task, attribute, value)
    task.tta = row.tta or task.tta
    result = evaluate({name: task}, {name: datasets[name]}, backend, augment=augment, limit=limit)
    metrics, views = result.metrics[name], task.views(datasets[name][0].size, augment=augment)
    return Cell(row, metrics.values[metrics.primary], result.seconds[name], len(views))


def to_markdown(table: str, cells: Sequence[Cell], source: str) -> str:
    """A table with paper, ours, difference and cost. Every number of "ours" comes from ``cells``."""
    first = next((cell.ours for cell in cells if cell.ours is not None), None)
    rows = []
    for cell in cells:
        paper = cell.row.paper
        line = [cell.row.label, "unknown" if paper is None else f"{paper:.4f}"]
        if cell.ours is None:
            rows.append([*line, cell.reason, "", "", "", ""])
            continue
        gap = "" if paper is None else f"{cell.ours - paper:+.4f}"
        gain = "" if table == "2" or first is None else f"{cell.ours - first:+.4f}"
        rows.append([*line, f"{cell.ours:.4f}", gap, gain, str(cell.views), f"{cell.seconds:.3f}"])
    heads = ["row", "paper", "ours", "ours - paper", "gain over the first row", "views", "s per image"]
    notes = {c.row.note if c.row.paper is None else f"{c.row.label}: {c.row.note}" for c in cells}
    bullets = "\n".join(f"* {note}" for note in sorted(notes))
    return f"### Table {table}\n\n{source}\n\n{markdown(heads, rows)}\n\n{bullets}"


def write(tables: Mapping[str, Sequence[Cell]], source: str, folder: Path) -> None:
    """Writes reproduce.md, reproduce.json and reproduce.png (metric against cost, one panel per table)."""
    from matplotlib.figure import Figure  # slow to import

    folder.mkdir(parents=True, exist_ok=True)
    texts = [to_markdown(name, cells, source) for name, cells in tables.items()]
    (folder / "reproduce.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    plain = [{"table": name, "rows": [_plain(cell) for cell in cells]} for name, cells in tables.items()]
    (folder / "reproduce.json").write_text(json.dumps({"source": source, "tables": plain}, indent=1), encoding="utf-8")
    figure = Figure(figsize=(5 * len(tables), 5), layout="constrained")
    for axes, (name, cells) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        for cell in cells:
            if cell.ours is not None:
                axes.plot(cell.seconds, cell.ours, "o", label=cell.row.label)
        axes.set(xlabel="seconds per image", ylabel="primary metric", title=f"Table {name}")
        if axes.lines:
            axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(folder / "reproduce.png", dpi=110)


def _plain(cell: Cell) -> dict[str, Any]:
    return {"label": cell.row.label, "task": cell.row.task_type, "paper": cell.row.paper, "ours": cell.ours,
            "seconds_per_picture": cell.seconds, "views": cell.views, "reason": cell.reason}  # fmt: skip
