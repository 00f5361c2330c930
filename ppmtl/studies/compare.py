"""One model for several tasks against one model per task: the runs, the arithmetic, the table."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ppmtl import tables
from ppmtl.build import Run


@dataclass(frozen=True)
class Command:
    """How the runs are started: flags of tools/train.py and tools/eval.py, which are in ``tools``."""

    tools: Path
    config: str
    overrides: list[list[str]]
    steps: int
    nprocs: int
    device: str | None
    limit: int | None

    def run(self, tool: str, folder: Path, tasks: Sequence[str], own: Sequence[str], *flags: str) -> None:
        """Runs a tool for some of the tasks; what it prints goes to console.log.

        Raises:
            ValueError: if it fails, with the end of what it printed.
        """
        device = ["--device", self.device] if self.device else []
        overrides = [item for group in self.overrides for item in group]
        command = [sys.executable, str(self.tools / f"{tool}.py"), "-c", self.config, "--tasks", ",".join(tasks), *device,
                   "-o", *overrides, f"save_dir={folder}", *own, *flags]  # fmt: skip
        console = folder / "console.log"
        with console.open("ab") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if code != 0:
            tail = "\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
            raise ValueError(f"{tool}.py ended with code {code}; the end of {console}:\n{tail}")


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


def compare(run: Run, command: Command, seeds: Sequence[int], out: Path) -> str:
    """Trains and evaluates every task alone and all together, for each seed; returns the table.

    A run that ``out`` holds already is not repeated, an interrupted one goes on.

    Raises:
        ValueError: if a folder holds a run with other settings, or a run fails.
    """
    names = tuple(run.settings.tasks)
    runs: list[Measured] = []
    primaries: dict[str, str] = {}
    plan = [(seed, tasks) for seed in seeds for tasks in [*((name,) for name in names), names]]
    for number, (seed, tasks) in enumerate(plan, 1):
        folder = out / f"{'+'.join(tasks)}_seed{seed}"
        print(f"[{number}/{len(plan)}] {' + '.join(tasks)}, seed {seed} -> {folder}", flush=True)
        seconds = _train(command, folder, tasks, seed)
        report = _evaluate(command, folder, tasks)
        primaries |= {task: report[task]["primary"] for task in tasks}
        metrics = {task: float(report[task][report[task]["primary"]] or 0.0) for task in tasks}
        print(f"    {seconds:.0f} s, {', '.join(f'{t} {m:.4f}' for t, m in metrics.items())}", flush=True)
        runs.append(Measured(tasks, seed, metrics, seconds, *_cost(run, tasks)))
    text = comparison(runs, {name: primaries[name] for name in names})
    size = run.settings.infer.size
    return text + (f"\n\nMultiply-adds at {size[0]} x {size[1]} (infer.size)." if size else "")


def _train(command: Command, folder: Path, tasks: Sequence[str], seed: int) -> float:
    """Trains one run to its end, if it is not there yet; returns its seconds of optimizer steps."""
    steps, plan = command.steps, folder / "plan.json"
    wanted = {key: value for key, value in asdict(command).items() if key in ("config", "overrides", "steps", "nprocs")}
    if plan.is_file() and json.loads(plan.read_text()) != wanted:
        raise ValueError(f"{folder} holds a run with other settings ({plan.name}); give another --out, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps(wanted))
    if not (folder / f"step_{steps:07d}").exists():
        own = ["train.epochs=1", f"train.steps_per_epoch={steps}", "train.eval_every=null",
               f"train.save_every={max(1, steps // 4)}", "train.early_stop=null", f"seed={seed}"]  # fmt: skip
        resume = ["-r", "auto"] if any(folder.glob("step_*")) else []
        command.run("train", folder, tasks, own, "--nprocs", str(command.nprocs), *resume)
    costs = re.findall(r" step: (\d+)/.* batch_cost: ([\d.]+)", (folder / "train.log").read_text(encoding="utf-8"))
    return steps * mean(map(float, dict(costs).values()))  # a step logged twice (interrupted, resumed) counts once


def _evaluate(command: Command, folder: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """The "tasks" part of metrics.json for the last weights, measured now or before."""
    report = folder / "eval" / "metrics.json"
    if not report.is_file() or json.loads(report.read_text(encoding="utf-8"))["limit"] != command.limit:
        limit = ["--limit", str(command.limit)] if command.limit else []
        command.run("eval", folder, tasks, [f"weights={folder / 'latest'}"], *limit)
    return dict(json.loads(report.read_text(encoding="utf-8"))["tasks"])


def _cost(run: Run, names: Sequence[str]) -> tuple[int, int]:
    """(trainable parameters, multiply-adds of one image at the shared size) of a model for some tasks."""
    from ppmtl import build
    from ppmtl.studies.cost import count_macs, count_parameters

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
    """The table and its summary as Markdown.

    Args:
        runs: single-task runs and joint ones, of one or more seeds, the same seeds for all.
        primaries: {task: name of its metric}.

    Raises:
        ValueError: if a task lacks its single-task run, or there is no joint one.
    """
    joint = [run for run in runs if len(run.tasks) == len(primaries)]
    single = {task: [run for run in runs if run.tasks == (task,)] for task in primaries}
    missing = [task for task, of_task in single.items() if len(of_task) != len(joint)]
    if missing or not joint:
        raise ValueError(
            f"needs a single-task run of every task and a joint one per seed; incomplete: {missing or 'joint'}"
        )
    alone = {task: [run.metrics[task] for run in single[task]] for task in primaries}
    together = {task: [run.metrics[task] for run in joint] for task in primaries}
    before, after = ({task: mean(of[task]) for task in primaries} for of in (alone, together))
    rows = []
    for task, metric in primaries.items():
        change = after[task] - before[task]
        share = f"{change / before[task]:+.1%}" if before[task] else "n/a"
        rows.append([task, metric, _spread(alone[task]), _spread(together[task]), f"{change:+.4f}", share])
    firsts = [single[task][0] for task in primaries]
    seconds = sum(mean(run.train_seconds for run in of_task) for of_task in single.values())
    costs = [
        ("parameters", 1e6, ".2f", " M", sum(run.parameters for run in firsts), joint[0].parameters),
        ("multiply-adds, all tasks on one picture", 1e9, ".2f", " G", sum(run.macs for run in firsts), joint[0].macs),
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


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
