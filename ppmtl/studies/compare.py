"""One model for several tasks against one model per task: the runs, the arithmetic, the table."""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ppmtl import build, cli, tables
from ppmtl.studies.cost import count_macs, count_parameters
from ppmtl.train.checkpoint import recover


@dataclass(frozen=True)
class Measured:
    """One trained model.

    Attributes:
        tasks: what it was trained for, in the config's order.
        seed: of the run.
        metrics: {task: its primary metric on the validation set}, higher is better.
        train_seconds: of the whole training, evaluation not included.
        parameters: trainable numbers.
        macs: multiply-adds of one image at the shared input size, all its tasks.
    """

    tasks: tuple[str, ...]
    seed: int
    metrics: dict[str, float]
    train_seconds: float
    parameters: int
    macs: int


def compare(run: build.Run, arguments: argparse.Namespace, out: Path) -> str:
    """Trains and evaluates every task alone and all together, for each seed; returns the table.

    A run that ``out`` holds already is not repeated, an interrupted one goes on. ``arguments`` are those of
    tools/compare_tasks.py.

    Raises:
        ValueError: if a folder holds a run with other settings, or a run fails.
    """
    names = tuple(run.settings.tasks)
    steps, seeds = arguments.steps or run.settings.train.total_steps, arguments.seeds or [run.settings.seed]
    runs: list[Measured] = []
    primaries: dict[str, str] = {}
    plan = [(seed, tasks) for seed in seeds for tasks in [*((name,) for name in names), names]]
    for number, (seed, tasks) in enumerate(plan, 1):
        folder = out / f"{'+'.join(tasks)}_seed{seed}"
        print(f"[{number}/{len(plan)}] {' + '.join(tasks)}, seed {seed} -> {folder}", flush=True)
        seconds = train_run(arguments, folder, tasks, seed, *_own_pace(run, tasks, steps))
        report = evaluate_run(arguments, folder, tasks)
        primaries |= {task: report[task]["primary"] for task in tasks}
        metrics = {task: float(report[task][report[task]["primary"]] or 0.0) for task in tasks}
        print(f"    {seconds:.0f} s, {', '.join(f'{t} {m:.4f}' for t, m in metrics.items())}", flush=True)
        runs.append(Measured(tasks, seed, metrics, seconds, *_cost(run, tasks)))
    size = run.settings.infer.size
    return comparison(runs, primaries) + (f"\n\nMultiply-adds at {size[0]} x {size[1]} (infer.size)." if size else "")


def _run(tool: str, given: argparse.Namespace, folder: Path, tasks: Sequence[str], own: Sequence[str]) -> None:
    """Runs a tool for some of the tasks; what it prints goes to console.log, and its end into the error."""
    overrides = [item for group in given.overrides for item in group]
    command = [sys.executable, str(cli.folder_of("tools") / f"{tool}.py"), "-c", given.config, "--tasks", ",".join(tasks),
               *(["--device", given.device] if given.device else []), "-o", *overrides, f"save_dir={folder}", *own]  # fmt: skip
    console = folder / "console.log"
    with console.open("ab") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        tail = "\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
        raise ValueError(f"{tool}.py ended with code {code}; the end of {console}:\n{tail}")


def _own_pace(run: build.Run, tasks: Sequence[str], steps: int) -> tuple[int, list[str]]:
    """The steps of a run for some tasks that takes as many of their batches as ``steps`` of all tasks, and its overrides.

    They differ where none of these tasks' sources takes part in every step.
    """
    every = {name: s.every for name, s in run.settings.sources.items() if set(s.all_tasks(name)) & set(tasks)}
    pace = math.gcd(*every.values()) or 1
    return -(-steps // pace), [f"sources.{name}.every={n // pace}" for name, n in every.items() if pace > 1]


def train_run(
    given: argparse.Namespace, folder: Path, tasks: Sequence[str], seed: int, steps: int, pace: Sequence[str]
) -> float:
    """Trains one run to its end, if it is not there yet; returns its seconds of optimizer steps."""
    plan = folder / "plan.json"
    wanted = {"config": given.config, "overrides": given.overrides, "steps": steps, "nprocs": given.nprocs}
    if plan.is_file() and json.loads(plan.read_text()) != wanted:
        raise ValueError(f"{folder} holds a run with other settings ({plan.name}); give another --out, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps(wanted))
    if not (folder / f"step_{steps:07d}").exists():
        own = ["train.epochs=1", f"train.steps_per_epoch={steps}", "train.eval_every=null",
               f"train.save_every={max(1, steps // 4)}", "train.early_stop=null", f"seed={seed}", *pace]  # fmt: skip
        recover(folder)  # the first checkpoint of an interrupted run may be complete and still hidden
        resume = ["-r", "auto"] if any(folder.glob("step_*")) else []
        _run("train", given, folder, tasks, [*own, "--nprocs", str(given.nprocs), *resume])
    return steps * mean(step_seconds(folder))


def step_seconds(folder: Path) -> list[float]:
    """Seconds per optimizer step, one number per line of the run's log."""
    costs = re.findall(r" step: (\d+)/.* batch_cost: ([\d.]+)", (folder / "train.log").read_text(encoding="utf-8"))
    return [float(cost) for cost in dict(costs).values()]  # a step logged twice (interrupted, resumed) counts once


def evaluate_run(given: argparse.Namespace, folder: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """The "tasks" part of metrics.json for the last weights, measured now or before."""
    report = folder / "eval" / "metrics.json"
    if not report.is_file() or json.loads(report.read_text(encoding="utf-8"))["limit"] != given.limit:
        limit = ["--limit", str(given.limit)] if given.limit else []
        _run(
            "eval", given, folder, tasks, [f"weights={folder / 'latest'}", "--output_eval", str(report.parent), *limit]
        )
    return dict(json.loads(report.read_text(encoding="utf-8"))["tasks"])


def _cost(run: build.Run, names: Sequence[str]) -> tuple[int, int]:
    """(trainable parameters, multiply-adds of one image at the shared size) of a model for some tasks."""
    chosen = build.select_tasks(run, names).settings
    tasks = build.build_tasks(chosen)
    model = build.build_model(chosen, tasks)
    size = chosen.infer.size or next(iter(tasks.values())).plain_size((720, 1280))
    macs = sum(count_macs(model, size, tasks, training=False).values())
    return sum(sum(parts.values()) for parts in count_parameters(model).values()), macs


def delta_m(single: Mapping[str, float], joint: Mapping[str, float]) -> float:
    """Mean relative change of the tasks' metrics from single to joint; .02 = 2 % better on average.

    Source: Maninis et al., "Attentive Single-Tasking of Multiple Tasks", CVPR 2019, equation 4, for metrics of which
    higher is better. NaN where a single-task metric is 0: nothing is relative to that.
    """
    return mean((joint[task] - single[task]) / single[task] if single[task] else math.nan for task in joint)


def comparison(runs: Sequence[Measured], primaries: Mapping[str, str]) -> str:
    """The table and its summary as Markdown, for single-task runs and joint ones of the same seeds.

    ``primaries`` is {task: name of its metric}.
    """
    joint = [run for run in runs if len(run.tasks) == len(primaries)]
    single = {task: [run for run in runs if run.tasks == (task,)] for task in primaries}
    before = {task: mean(run.metrics[task] for run in single[task]) for task in primaries}
    after = {task: mean(run.metrics[task] for run in joint) for task in primaries}
    rows = []
    for task, metric in primaries.items():
        change = after[task] - before[task]
        share = f"{change / before[task]:+.1%}" if before[task] else "n/a"
        rows.append([task, metric, _spread(single[task], task), _spread(joint, task), f"{change:+.4f}", share])
    firsts = [of_task[0] for of_task in single.values()]
    seconds = sum(mean(run.train_seconds for run in of_task) for of_task in single.values())
    costs = [
        ("parameters", 1e6, ".2f", " M", sum(run.parameters for run in firsts), joint[0].parameters),
        ("multiply-adds, all tasks on one image", 1e9, ".2f", " G", sum(run.macs for run in firsts), joint[0].macs),
        ("training seconds", 1, ".0f", "", seconds, mean(run.train_seconds for run in joint)),
    ]
    change = delta_m(before, after)
    percent = "n/a, because a single-task metric is 0" if math.isnan(change) else f"{change:+.2%}"
    heads = ["task", "metric", "one model per task", "one model for all", "change", "relative"]
    return "\n\n".join([
        tables.markdown(heads, rows),
        f"delta-m (mean relative change): {percent}; seeds {', '.join(str(run.seed) for run in joint)}",
        tables.markdown(["cost", "one model per task, summed", "one model for all", "ratio"], [
            [what, f"{one / by:{digits}}{unit}", f"{all_ / by:{digits}}{unit}", f"{all_ / one:.2f}"]
            for what, by, digits, unit, one, all_ in costs
        ]),
    ])  # fmt: skip


def _spread(runs: Sequence[Measured], task: str) -> str:
    values = [run.metrics[task] for run in runs]
    spread = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"
