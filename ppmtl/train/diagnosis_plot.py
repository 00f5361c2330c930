"""diagnosis.csv as a drawing: one column per stage, norms above, cosines below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppmtl.predict.report import new_figure

_SMOOTHED_FROM = 20  # so many diagnoses and more are drawn faint, with a running mean over a tenth of them on top

_COLOURS = {  # tasks and pairs of tasks are different things: no colour means one of each
    "norm": ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"),
    "cosine": ("#1b9e77", "#7570b3", "#a6761d", "#e7298a", "#66a61e", "#666666"),
}


def plot_diagnosis(rows: Sequence[tuple[int, str, str, str, str, float]], path: Path) -> None:
    """Draws the lines of diagnosis.csv (at least one) as PNG."""
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
