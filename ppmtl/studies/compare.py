"""One model for several tasks against one model per task: the arithmetic and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from ppmtl.studies.cost_table import table


@dataclass(frozen=True)
class Measured:
    """One trained model.

    Attributes:
        tasks: what it was trained for, in the config's order.
        seed: of the run.
        metrics: {task: its primary metric on the validation set}, higher is better.
        train_seconds: of the whole training, evaluation not included.
        parameters: trainable numbers.
        macs: multiply-adds of one picture at the shared input size, all its tasks.
    """

    tasks: tuple[str, ...]
    seed: int
    metrics: dict[str, float]
    train_seconds: float
    parameters: int
    macs: int


def delta_m(single: Mapping[str, float], joint: Mapping[str, float]) -> float:
    """Returns the mean relative change of the tasks' metrics from single to joint; .02 = 2 % better on average.

    Source: Maninis et al., "Attentive Single-Tasking of Multiple Tasks", CVPR 2019, equation 4, for metrics of which
    higher is better. NaN where a single-task metric is 0: nothing is relative to that.
    """
    changes = [(joint[task] - single[task]) / single[task] if single[task] else float("nan") for task in joint]
    return mean(changes)


def comparison(runs: Sequence[Measured], primaries: Mapping[str, str]) -> str:
    """Returns the table and its summary as Markdown.

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
    rows = []
    for task, metric in primaries.items():
        alone = [run.metrics[task] for run in single[task]]
        together = [run.metrics[task] for run in joint]
        change = mean(together) - mean(alone)
        share = f"{change / mean(alone):+.1%}" if mean(alone) else "n/a"
        rows.append([task, metric, _spread(alone), _spread(together), f"{change:+.4f}", share])
    firsts = [single[task][0] for task in primaries]
    alone_mean = {task: mean(run.metrics[task] for run in single[task]) for task in primaries}
    joint_mean = {task: mean(run.metrics[task] for run in joint) for task in primaries}
    cost = [
        ["parameters", f"{sum(r.parameters for r in firsts) / 1e6:.2f} M", f"{joint[0].parameters / 1e6:.2f} M",
         f"{joint[0].parameters / sum(r.parameters for r in firsts):.2f}"],
        ["multiply-adds, all tasks on one picture", f"{sum(r.macs for r in firsts) / 1e9:.2f} G",
         f"{joint[0].macs / 1e9:.2f} G", f"{joint[0].macs / sum(r.macs for r in firsts):.2f}"],
        ["training seconds", f"{_seconds(single):.0f}", f"{mean(r.train_seconds for r in joint):.0f}",
         f"{mean(r.train_seconds for r in joint) / _seconds(single):.2f}"],
    ]  # fmt: skip
    heads = ["task", "metric", "one model per task", "one model for all", "change", "relative"]
    names = ["cost", "one model per task, summed", "one model for all", "ratio"]
    seeds = ", ".join(str(run.seed) for run in joint)
    return "\n\n".join(
        [
            table(heads, rows),
            f"delta-m (mean relative change): {_percent(delta_m(alone_mean, joint_mean))}; seeds {seeds}",
            table(names, cost),
        ]
    )


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _percent(share: float) -> str:
    return "n/a, because a single-task metric is 0" if math.isnan(share) else f"{share:+.2%}"


def _seconds(single: Mapping[str, Sequence[Measured]]) -> float:
    return sum(mean(run.train_seconds for run in runs) for runs in single.values())
