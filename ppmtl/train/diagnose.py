"""What the tasks' gradients do to each other in the trunk, while a run goes on: how large each is, and who pulls against whom.

``diagnosis.csv`` has one number per line: step, stage, task_a, task_b, quantity, value. ``norm`` is of task_a alone (task_b
is empty), ``cosine`` of the pair; it is empty where a gradient is zero. The gradients are those of the weighted losses, before
they are clipped or combined.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from ppmtl.train.balance._algebra import inner_products
from ppmtl.train.balance._base import BalanceMethod, Gradients
from ppmtl.train.diagnosis_plot import plot_diagnosis
from ppmtl.train.log import LOGGER, VisualLog

WHOLE = "backbone"


class Row(NamedTuple):
    """One line of diagnosis.csv."""

    step: int
    stage: str
    task_a: str
    task_b: str
    quantity: str
    value: float


def stage_of(name: str) -> str:
    """Returns the stage that a backbone parameter belongs to: "stage 2", by the first number that ends a part of its name.

    "backbone.stages.2.0.norm.bias", "backbone.downsample_layers.2.0.weight" and "backbone.norm2.weight" are one stage.
    Names without such a number are "other".
    """
    found = re.search(r"(\d+)\.", name)
    return f"stage {found[1]}" if found else "other"


class Diagnosis:
    """Writes diagnosis.csv as it goes and diagnosis.png in the end; warns once when a task starves.

    Costs the gradients of every task kept apart in the steps that are diagnosed (one copy of the trunk's each) and
    T (T + 1) / 2 inner products.

    Args:
        save_dir: where the two files go.
        names: of the shared parameters, in the gradients' order.
        start_step: steps done when the run starts. 0 starts a new file; otherwise lines of later steps, which a run wrote
            that ended after its last checkpoint, are dropped and the rest is continued.
        visual: gets the same numbers as scalars.
        balance: the run's method; with one that gives all tasks the same norm nobody starves.
        starving_share: a task starves when its norm over the whole backbone is less than this share of the largest ...
        starving_rounds: ... in this many diagnoses in a row.
    """

    def __init__(
        self,
        save_dir: Path,
        names: Sequence[str],
        *,
        start_step: int = 0,
        visual: VisualLog | None = None,
        balance: BalanceMethod | None = None,
        starving_share: float = 0.05,
        starving_rounds: int = 3,
    ) -> None:
        self._path, self._visual = save_dir / "diagnosis.csv", visual or VisualLog(None)
        stages = [stage_of(name) for name in names]
        self._members = {WHOLE: np.ones(len(stages), bool)}
        for stage in sorted(set(stages), key=_natural):
            self._members[stage] = np.array([s == stage for s in stages])
        self._share, self._rounds = starving_share, starving_rounds
        self._can_starve = balance is None or not balance.equal_norms
        self._warned: set[str] = set()
        save_dir.mkdir(parents=True, exist_ok=True)
        self.rows = _read(self._path, start_step)
        self._norms = _norms_of_backbone(self.rows)
        _rewrite(self._path, self.rows)

    def record(self, step: int, gradients: Mapping[str, Gradients]) -> None:
        """Takes the shared gradients of one step: {task: gradients}, averaged over processes, without loss scale.

        Args:
            step: optimizer steps done, this one included.
            gradients: as ``BalanceMethod.combine`` takes them.
        """
        products = inner_products(gradients)
        if not np.isfinite(products).all():
            return  # float16 overflowed; the loop leaves this step out as well
        rows = []
        for stage, members in self._members.items():
            rows += _measure(step, stage, list(gradients), products[members].sum(axis=0))
        self.rows += rows
        self._norms += _norms_of_backbone(rows)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(map(_fields, rows))
        for row in rows:
            name = "_".join(part for part in (row.quantity, row.task_a, row.task_b) if part)
            if math.isfinite(row.value):
                self._visual.scalars({name: row.value}, step, f"diagnosis/{row.stage}")
        if self._can_starve:
            self._warn()

    def _warn(self) -> None:
        last = self._norms[-self._rounds :]
        if len(last) < self._rounds:
            return
        for task in last[-1].keys() - self._warned:
            # where every gradient is zero (a part that is frozen, a loss that is switched off) nobody is worse off
            shares = [norms.get(task, 0.0) / top if (top := max(norms.values())) > 0 else 1.0 for norms in last]
            if max(shares) >= self._share:
                continue
            self._warned.add(task)
            largest = max(last[-1], key=last[-1].__getitem__)
            LOGGER.warning(
                "task '%s' starves: in the last %d diagnoses its gradient in the backbone had at most %.1f %% of the norm "
                "of the largest (now '%s'). If its metric lags behind too, raise -o train.loss_weights.%s=..., or give all "
                "tasks the same norm with -o train.balance.type=tbgc; docs/balancing.md",
                task, len(last), 100 * max(shares), largest, task,
            )  # fmt: skip

    def close(self) -> None:
        """Draws diagnosis.png of everything recorded, also before a resume."""
        if self.rows:
            plot_diagnosis(self.rows, self._path.with_suffix(".png"))

    def __enter__(self) -> Diagnosis:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _measure(step: int, stage: str, tasks: Sequence[str], products: np.ndarray) -> list[Row]:
    norms = np.sqrt(np.diagonal(products))
    rows = [Row(step, stage, task, "", "norm", float(norm)) for task, norm in zip(tasks, norms, strict=True)]
    for a, b in combinations(range(len(tasks)), 2):
        scale = norms[a] * norms[b]
        cosine = float(products[a, b] / scale) if scale > 0 else math.nan
        rows.append(Row(step, stage, tasks[a], tasks[b], "cosine", cosine))
    return rows


def _norms_of_backbone(rows: Iterable[Row]) -> list[dict[str, float]]:
    """Returns {task: norm over the whole backbone} of every step, in the rows' order."""
    by_step: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.stage == WHOLE and row.quantity == "norm":
            by_step.setdefault(row.step, {})[row.task_a] = row.value
    return list(by_step.values())


def _natural(stage: str) -> tuple[bool, int]:
    number = stage.rpartition(" ")[2]
    return (False, int(number)) if number.isdigit() else (True, 0)


def _fields(row: Row) -> list[str]:
    return [*map(str, row[:-1]), "" if math.isnan(row.value) else f"{row.value:.6g}"]


def _read(path: Path, last_step: int) -> list[Row]:
    """Returns the rows up to ``last_step``; none if there is no file: the run may have been started without --diagnose."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [fields for fields in csv.reader(file) if len(fields) == len(Row._fields) and fields[0].isdigit()]
    values = (float(value) if value else math.nan for *_, value in lines)
    rows = [Row(int(f[0]), f[1], f[2], f[3], f[4], value) for f, value in zip(lines, values, strict=True)]
    return [row for row in rows if row.step <= last_step]


def _rewrite(path: Path, rows: Iterable[Row]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(Row._fields), *map(_fields, rows)])
    os.replace(fresh, path)
