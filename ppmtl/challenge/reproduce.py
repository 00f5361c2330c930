"""The paper's tables as rows that can be run on any config, weights and data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ppmtl.predict.evaluate import EvalSet, evaluate
from ppmtl.predict.pipeline import Backend
from ppmtl.tables import markdown
from ppmtl.tasks.base import Task
from ppmtl.tasks.views import TestTimeAugmentation


@dataclass(frozen=True)
class Row:
    """One line of a table, and what was measured for it.

    Attributes:
        tta: the views; None = one plain view.
        settings: other attributes of the task, e.g. {"merge": "nms"}.
        paper: the paper's number as a fraction, or None.
        note: why ``paper`` is None, or what to know about it.
        ours: the primary metric as a fraction; None = not run, and ``reason`` says why.
        seconds: per image.
        views: how many views of an image were shown.
    """

    label: str
    task_type: str
    tta: TestTimeAugmentation | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None
    note: str = "the paper's number for this row is not among the project's sources"
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
_LIST_A = "list A of the leaderboard, with TTA"
TABLES: dict[str, list[Row]] = {
    "2": [
        Row("segmentation, mIoU", _SEG, paper=0.67104, note=_LIST_A),
        Row("classification, Top-1", _CLS, paper=0.95784, note=_LIST_A),
        Row("detection, mAP50", _DET, paper=0.95615, note=_LIST_A),
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
    row: Row, tasks: Mapping[str, Task[Any]], sets: Mapping[str, EvalSet], backend: Backend, limit: int | None = None
) -> Row:
    """The row, measured on its task's own data set (the first ``limit`` images) with a copy of the task."""
    reader_of = {task: of_set.reader for of_set in sets.values() for task in of_set.tasks}
    name = next((n for n, t in tasks.items() if t.task_type == row.task_type and n in reader_of), None)
    if name is None:
        return replace(row, reason=f"not run: the config has no {row.task_type} task with a validation set")
    augment = row.tta is not None
    task = replace(tasks[name], tta=row.tta or tasks[name].tta, **row.settings)
    result = evaluate({name: task}, {name: EvalSet(reader_of[name], (name,))}, backend, augment=augment, limit=limit)
    metrics, views = result.metrics[name], task.views(reader_of[name][0].size, augment=augment)
    return replace(row, ours=metrics.values[metrics.primary], seconds=result.seconds[name], views=len(views))


def to_markdown(table: str, rows: Sequence[Row], source: str) -> str:
    """A table with paper, ours, difference and cost. Every number of "ours" was measured."""
    first = next((row.ours for row in rows if row.ours is not None), None)
    lines = []
    for row in rows:
        measured: list[object] = [row.reason, "", "", "", ""]
        if row.ours is not None:
            gap = "" if row.paper is None else f"{row.ours - row.paper:+.4f}"
            gain = "" if table == "2" or first is None else f"{row.ours - first:+.4f}"
            measured = [f"{row.ours:.4f}", gap, gain, row.views, f"{row.seconds:.3f}"]
        lines.append([row.label, "unknown" if row.paper is None else f"{row.paper:.4f}", *measured])
    heads = ["row", "paper", "ours", "ours - paper", "gain over the first row", "views", "s per image"]
    notes = sorted({row.note if row.paper is None else f"{row.label}: {row.note}" for row in rows})
    return "\n".join([f"### Table {table}\n\n{source}\n\n{markdown(heads, lines)}\n", *(f"* {note}" for note in notes)])


def write(tables: Mapping[str, Sequence[Row]], source: str, folder: Path) -> None:
    """Writes reproduce.md and reproduce.json."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [to_markdown(name, rows, source) for name, rows in tables.items()]
    (folder / "reproduce.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    plain = [
        {"table": name, "rows": [
            {"label": row.label, "task": row.task_type, "paper": row.paper, "ours": row.ours,
             "seconds_per_picture": row.seconds, "views": row.views, "reason": row.reason} for row in rows
        ]}
        for name, rows in tables.items()
    ]  # fmt: skip
    (folder / "reproduce.json").write_text(json.dumps({"source": source, "tables": plain}, indent=1), encoding="utf-8")
