"""The tables of the YOLOR multi-task paper (arXiv 2309.16921) on any config: every cell is a model trained for it.

The paper's numbers: reference/yolor_mtl.md sections 3.3 to 3.5. They are of full size and of COCO; what can be compared at
another size is which cell is the better one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppmtl import build, tables
from ppmtl.config import ConfigError, target_of
from ppmtl.config.settings import named_views
from ppmtl.studies.compare import evaluate_run, train_run

BOXES, SEMANTICS, SENTENCES = "instances", "segmentation", "captions"
ALL = (BOXES, SEMANTICS, SENTENCES)
# Of which kind of task, its name in metrics.json, and in the table
METRICS = (
    (BOXES, "box_ap50_95", "box AP"),
    (BOXES, "mask_ap50_95", "mask AP"),
    (SEMANTICS, "miou", "mIoU"),
    (SEMANTICS, "fwiou", "FWIoU"),
    (SENTENCES, "bleu4", "BLEU-4"),
    (SENTENCES, "cider_d", "CIDEr-D"),
)


@dataclass(frozen=True)
class Cell:
    """One model of a table.

    Attributes:
        label: what is particular about it.
        kinds: of the tasks that it is trained for.
        head: keys of the semantic head that it changes.
        strong: the captions too see the strong view's transforms.
        paper: {metric: the paper's number as a fraction}.
    """

    label: str
    kinds: tuple[str, ...]
    head: Mapping[str, Any] = field(default_factory=dict)
    strong: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where it is trained; cells of two tables that are one model share it."""
        changes = [*(f"{key}_{value}" for key, value in self.head.items()), *(["strong"] if self.strong else [])]
        return "+".join([*self.kinds, *changes])


TABLES: dict[str, tuple[Cell, ...]] = {
    "pairing": (
        Cell("captions", (SENTENCES,)),
        Cell("boxes + captions", (BOXES, SENTENCES), paper={"bleu4": 0.206}),
        Cell("semantics + captions", (SEMANTICS, SENTENCES), paper={"bleu4": 0.059}),
        Cell("all", ALL, paper={"bleu4": 0.207}),
    ),
    "augmentation": (
        Cell("captions strong", ALL, strong=True,
             paper={"box_ap50_95": 0.314, "mask_ap50_95": 0.253, "fwiou": 0.481, "bleu4": 0.070}),
        Cell("captions weak", ALL,
             paper={"box_ap50_95": 0.356, "mask_ap50_95": 0.288, "fwiou": 0.535, "bleu4": 0.162}),
    ),
    "semantic_head": (
        Cell("multi-scale, stride 1", (BOXES, SEMANTICS), {"scale": "multi", "out_stride": 1}, paper={"fwiou": 0.1979}),
        Cell("single scale, stride 1", (BOXES, SEMANTICS), {"scale": "single", "out_stride": 1}, paper={"fwiou": 0.5555}),
        Cell("single scale, stride 4", (BOXES, SEMANTICS), {"scale": "single", "out_stride": 4}, paper={"fwiou": 0.5644}),
    ),
}  # fmt: skip
NOTES = {
    "pairing": "The paper's numbers: epoch 20 of 60; of its other cells only BLEU-4 is among the project's sources.",
    "augmentation": "The paper's numbers: epoch 30 of 300. In both rows boxes, masks and semantics see the strong view.",
    "semantic_head": "The paper's numbers: after one schedule for all, with which other tasks is not known; here with boxes.",
}
# Table, the cells compared, and what is asked of them
QUESTIONS = (
    ("augmentation", 1, 0, "Does the weak view beat the strong one for captions?"),
    ("pairing", 1, 2, "Do boxes + captions beat semantics + captions?"),
)


@dataclass(frozen=True)
class Measured:
    """What came out for a cell: {metric: value} and the seconds of its training."""

    metrics: Mapping[str, float]
    seconds: float


def run(of_run: build.Run, arguments: argparse.Namespace, out: Path) -> str:
    """Trains and evaluates the cells of the tables asked for; returns all tables as Markdown.

    What ``out`` holds already is read back, an interrupted training goes on; cells of tables that are not asked for and were
    never measured are "not run".

    Args:
        of_run: the run that every cell changes.
        arguments: ``config``, ``overrides``, ``device``, ``nprocs``, ``limit``, ``steps`` and ``table``.
        out: a folder per cell.

    Raises:
        ConfigError: if the config lacks a kind of task that a cell needs, or views to choose from.
        ValueError: if a folder holds a run with other settings, or a run fails.
    """
    names, steps = _names(of_run), arguments.steps or of_run.settings.train.total_steps
    wanted = {cell.folder: cell for table in arguments.table for cell in TABLES[table]}
    changes = {folder: _changes(of_run, names, cell) for folder, cell in wanted.items()}
    for number, (folder, cell) in enumerate(wanted.items(), 1):
        print(f"[{number}/{len(wanted)}] {cell.label} -> {out / folder}", flush=True)
        _measure(of_run, arguments, out / folder, [names[kind] for kind in cell.kinds], steps, changes[folder])
    found = {cell.folder: _read(out / cell.folder, names, steps) for cells in TABLES.values() for cell in cells}
    source = f"{steps} steps, seed {of_run.settings.seed}, {arguments.config}"
    return "\n\n".join([*(_table(name, found, source) for name in TABLES), answers(found)])


def answers(found: Mapping[str, Measured | None]) -> str:
    """What the numbers say to the paper's two questions, for BLEU-4 and CIDEr-D, as Markdown."""
    lines = []
    for table, first, second, question in QUESTIONS:
        cells = TABLES[table][first], TABLES[table][second]
        one, other = (found.get(cell.folder) for cell in cells)
        if one is None or other is None:
            lines.append(f"* {question} Not run.")
            continue
        for metric, name in (("bleu4", "BLEU-4"), ("cider_d", "CIDEr-D")):
            a, b = one.metrics[metric], other.metrics[metric]
            verdict = "yes" if a > b else "no" if a < b else "no difference"
            lines.append(
                f"* {question} {name}: {verdict}, {a:.4f} ({cells[0].label}) against {b:.4f} ({cells[1].label})."
            )
    return "\n".join(["One run each; differences of the size that another seed makes say nothing.", "", *lines])


def _names(of_run: build.Run) -> dict[str, str]:
    """{kind of task: the config's first task of it}."""
    kinds = {target_of(task.part).task_type: name for name, task in reversed(of_run.settings.tasks.items())}
    if missing := [kind for kind in ALL if kind not in kinds]:
        raise ConfigError(
            [f"tasks: --paper yolor needs tasks of type {', '.join(ALL)}; there is no {', '.join(missing)}"]
        )
    return {kind: kinds[kind] for kind in ALL}


def _changes(of_run: build.Run, names: Mapping[str, str], cell: Cell) -> list[str]:
    """The overrides of a cell."""
    heads = {task: head for head, task in of_run.settings.model.answers().items()}
    changed = [f"model.heads.{heads[names[SEMANTICS]]}.{key}={value}" for key, value in cell.head.items()]
    return [*changed, *(_strong_captions(of_run, names) if cell.strong else [])]


def _strong_captions(of_run: build.Run, names: Mapping[str, str]) -> list[str]:
    """Overrides after which every view of the captions has the transforms of the boxes' first view, at its own size."""
    views = {
        "sources." + where.replace(".", ".views."): of_view.tasks
        for where, (_, of_view) in named_views(of_run.settings.sources).items()
    }
    transforms = {where: _at(of_run.tree.data, where).get("transforms", []) for where in views}
    strong: list[Any] = next((transforms[where] for where, tasks in views.items() if names[BOXES] in tasks), [])
    changed = [f"tasks.{names[SENTENCES]}.allow=[mirror, mix]"]
    for where in (where for where, tasks in views.items() if names[SENTENCES] in tasks):
        if len(views[where]) > 1:
            raise ConfigError([f"{where}.tasks: the captions need a view of their own to compare strong and weak"])
        size = next((step["size"] for step in reversed(transforms[where]) if "size" in step), None)
        shown = [step | ({"size": size} if size and "size" in step else {}) for step in strong]
        changed.append(f"{where}.transforms={json.dumps(shown)}")
    return changed


def _at(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping at a dotted key."""
    for part in key.split("."):
        data = data[part]
    return data


def _measure(
    of_run: build.Run, given: argparse.Namespace, folder: Path, tasks: Sequence[str], steps: int, changes: Sequence[str]
) -> None:
    """Trains and evaluates one cell, or what is left of that, and writes cell.json."""
    own = argparse.Namespace(
        **vars(given) | {"overrides": [*given.overrides, list(changes)] if changes else given.overrides}
    )
    order = [name for name in of_run.settings.tasks if name in tasks]
    seconds = train_run(own, folder, order, of_run.settings.seed, steps, [])
    measured = evaluate_run(own, folder, order)
    (folder / "cell.json").write_text(
        json.dumps({"steps": steps, "seconds": seconds, "tasks": measured}), encoding="utf-8"
    )


def _read(folder: Path, names: Mapping[str, str], steps: int) -> Measured | None:
    """What cell.json says, or None where a cell was not run for so many steps."""
    if not (folder / "cell.json").is_file():
        return None
    stored = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    if stored["steps"] != steps:
        return None
    tasks = stored["tasks"]
    values = {key: tasks[names[kind]][key] for kind, key, _ in METRICS if names[kind] in tasks}
    return Measured({key: value for key, value in values.items() if value is not None}, stored["seconds"])


def _table(name: str, found: Mapping[str, Measured | None], source: str) -> str:
    """One table: of every metric the paper's number, where it is known, and ours."""
    cells = TABLES[name]
    shown = [(key, title) for kind, key, title in METRICS if any(kind in cell.kinds for cell in cells)]
    heads = [
        "model",
        *(f"{title} {of}" for key, title in shown for of in (["paper", "ours"] if _known(cells, key) else ["ours"])),
        "s",
    ]
    rows = []
    for cell in cells:
        of_cell = found[cell.folder]
        row: list[object] = [cell.label]
        for key, _ in shown:
            row += [f"{cell.paper[key]:.4f}" if key in cell.paper else "unknown"] if _known(cells, key) else []
            ours = None if of_cell is None else of_cell.metrics.get(key)
            row.append("not run" if of_cell is None else "" if ours is None else f"{ours:.4f}")
        rows.append([*row, "" if of_cell is None else f"{of_cell.seconds:.0f}"])
    return f"### {name}\n\n{source}\n\n{tables.markdown(heads, rows)}\n\n{NOTES[name]}"


def _known(cells: Sequence[Cell], metric: str) -> bool:
    return any(metric in cell.paper for cell in cells)
