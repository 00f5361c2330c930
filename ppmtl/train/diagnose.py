"""What the tasks' gradients in the backbone do to each other during a run: how large each is, which ones conflict.

``diagnosis.csv`` has one number per line: step, stage, task_a, task_b, quantity, value. ``norm`` is of task_a alone (task_b
is empty), ``cosine`` of the pair; it is empty where a gradient is zero. The gradients are those of the weighted losses, before
they are clipped or combined.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ppmtl.files import atomic_write
from ppmtl.predict.report import new_figure
from ppmtl.train.balance._base import BalanceMethod, Gradients, inner_products
from ppmtl.train.log import LOGGER, VisualLog

BACKBONE = "backbone"  # the stage that stands for all of them
STARVING_SHARE = 0.05  # a task starves when its norm over the backbone is below this share of the largest ...
STARVING_ROUNDS = 3  # ... in so many diagnoses in a row
_SMOOTHED_FROM = 20  # so many diagnoses and more are drawn faint, with a running mean over a tenth of them on top

_COLOURS = {  # tasks and pairs of tasks are different things: no colour means one of each
    "norm": ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"),
    "cosine": ("#1b9e77", "#7570b3", "#a6761d", "#e7298a", "#66a61e", "#666666"),
}


class Row(NamedTuple):
    """One line of diagnosis.csv."""

    step: int
    stage: str
    task_a: str
    task_b: str
    quantity: str
    value: float


def stage_of(name: str) -> str:
    """The stage that a backbone parameter belongs to: "stage 2", by the first number that ends a part of its name.

    "backbone.stages.2.0.norm.bias", "backbone.downsample_layers.2.0.weight" and "backbone.norm2.weight" are one stage.
    Names without such a number are "other".
    """
    found = re.search(r"(\d+)\.", name)
    return f"stage {found[1]}" if found else "other"


class Diagnosis:
    """Appends to diagnosis.csv at every record, draws diagnosis.png when it is left, warns once when a task starves.

    Costs the gradients of every task kept apart in the steps that are diagnosed (one copy of the backbone's each) and
    T (T + 1) / 2 inner products.

    Args:
        save_dir: where the two files go.
        names: of the shared parameters, in the gradients' order.
        start_step: steps done when the run starts. 0 starts a new file; otherwise the file is continued, without the lines
            of later steps, which a run wrote that ended after its last checkpoint.
        visual: gets the same numbers as scalars.
        balance: the run's method; with one that gives all tasks the same norm no task starves.
    """

    def __init__(
        self,
        save_dir: Path,
        names: Sequence[str],
        *,
        start_step: int = 0,
        visual: VisualLog | None = None,
        balance: BalanceMethod | None = None,
    ) -> None:
        self._path, self._visual = save_dir / "diagnosis.csv", visual or VisualLog(None)
        stages = np.array([stage_of(name) for name in names])
        in_order = sorted(set(stages.tolist()), key=lambda stage: (stage == "other", len(stage), stage))
        self._members = {BACKBONE: np.ones(len(names), bool)} | {stage: stages == stage for stage in in_order}
        self._can_starve = balance is None or not balance.equal_norms
        self._warned: set[str] = set()
        self.rows = _read(self._path, start_step)
        save_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as fresh:
            _write(fresh, "w", [Row._fields, *map(_fields, self.rows)])

    def record(self, step: int, gradients: Mapping[str, Gradients]) -> None:
        """Writes the numbers after ``step`` steps of shared gradients, averaged over processes and without loss scale."""
        products = inner_products(gradients)
        if not np.isfinite(products).all():
            return  # float16 overflowed; the loop skips this step as well
        rows = []
        for stage, members in self._members.items():
            of_stage = _measure(step, stage, list(gradients), products[members].sum(axis=0))
            values = {"_".join(filter(None, (r.quantity, r.task_a, r.task_b))): r.value for r in of_stage}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._visual.scalars(finite, step, f"diagnosis/{stage}")
            rows += of_stage
        _write(self._path, "a", map(_fields, rows))
        self.rows += rows
        if self._can_starve:
            self._warn()

    def _warn(self) -> None:
        norms: dict[int, dict[str, float]] = {}
        for row in self.rows:
            if row.stage == BACKBONE and row.quantity == "norm":
                norms.setdefault(row.step, {})[row.task_a] = row.value
        last = list(norms.values())[-STARVING_ROUNDS:]
        if len(last) < STARVING_ROUNDS:
            return
        for task in (
            set(last[-1]).intersection(*last) - self._warned
        ):  # a source's every, or its labels, may leave one out
            # Where every gradient is zero (a frozen part, a loss that is switched off) no task is worse off
            shares = [of.get(task, 0.0) / top if (top := max(of.values())) > 0 else 1.0 for of in last]
            if max(shares) >= STARVING_SHARE:
                continue
            self._warned.add(task)
            LOGGER.warning(
                "task '%s' starves: in the last %d diagnoses its gradient in the backbone had at most %.1f %% of the norm "
                "of the largest (now '%s'). If its metric lags behind too, raise -o train.loss_weights.%s=..., or give all "
                "tasks the same norm with -o train.balance.type=tbgc; docs/balancing.md",
                task, len(last), 100 * max(shares), max(last[-1], key=last[-1].__getitem__), task,
            )  # fmt: skip

    def __enter__(self) -> Diagnosis:
        return self

    def __exit__(self, *error: object) -> None:
        if self.rows:
            _plot(self.rows, self._path.with_suffix(".png"))


def _measure(step: int, stage: str, tasks: Sequence[str], products: np.ndarray) -> list[Row]:
    norms = np.sqrt(np.diagonal(products))
    rows = [Row(step, stage, task, "", "norm", float(norm)) for task, norm in zip(tasks, norms, strict=True)]
    for a, b in combinations(range(len(tasks)), 2):
        scale = norms[a] * norms[b]
        cosine = float(products[a, b] / scale) if scale > 0 else math.nan
        rows.append(Row(step, stage, tasks[a], tasks[b], "cosine", cosine))
    return rows


def _write(path: Path, mode: Literal["w", "a"], lines: Iterable[Sequence[str]]) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def _fields(row: Row) -> list[str]:
    return [*map(str, row[:-1]), "" if math.isnan(row.value) else f"{row.value:.6g}"]


def _read(path: Path, last_step: int) -> list[Row]:
    """The rows up to ``last_step``; none without a file, as the run may have been started without --diagnose."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if len(line) == len(Row._fields) and line[0].isdigit()]
    return [
        Row(int(step), stage, task_a, task_b, quantity, float(value or "nan"))
        for step, stage, task_a, task_b, quantity, value in lines
        if int(step) <= last_step
    ]


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the rows (at least one) as PNG: one column per stage, norms above, cosines below."""
    from matplotlib.ticker import LogFormatter  # slow to import

    lines: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for step, stage, task_a, task_b, quantity, value in rows:
        lines[quantity, stage][f"{task_a} · {task_b}" if task_b else task_a].append((step, value))
    stages = list(dict.fromkeys(row[1] for row in rows))
    figure = new_figure(2.6 * len(stages) + 1.6, 5.6)
    grid = figure.subplots(2, len(stages), sharex=True, sharey="row", squeeze=False)
    for column, stage in enumerate(stages):
        for axes, (quantity, colours) in zip(grid[:, column], _COLOURS.items(), strict=True):
            for index, (label, points) in enumerate(lines[quantity, stage].items()):
                steps, values = np.array(points, float).T
                style = {"color": colours[index % len(colours)], "label": label}
                if len(points) < _SMOOTHED_FROM:
                    axes.plot(steps, values, **style, marker="o", markersize=3, linewidth=1.2)
                else:
                    axes.plot(steps, values, color=style["color"], alpha=0.25, linewidth=0.8)
                    axes.plot(*_running_mean(steps, values, len(points) // 10), **style, linewidth=1.8)
            axes.grid(alpha=0.25)
        grid[0, column].set(title=stage, yscale="log")
        grid[0, column].yaxis.set_major_formatter("{x:g}")  # 10, not 10^1
        grid[0, column].yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
        grid[1, column].axhline(0, color="black", linewidth=0.8)
        grid[1, column].set(ylim=(-1.02, 1.02), xlabel="step")
    grid[0, 0].set_ylabel("norm of a task's gradient")
    grid[1, 0].set_ylabel("cosine of two tasks' gradients")
    for axes in grid[:, -1]:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def _running_mean(steps: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The middles of all windows of ``width`` points, and the means of the finite values in them."""
    known, window = np.isfinite(values), np.ones(width)
    total = np.convolve(np.where(known, values, 0), window, "valid")
    count = np.convolve(known, window, "valid")
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return steps[(width - 1) // 2 :][: len(mean)], mean
