"""Turns an evaluation into text, JSON, CSV and plots."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppmtl.files import atomic_write
from ppmtl.predict.evaluate import Evaluation
from ppmtl.predict.extremes import Extremes
from ppmtl.tables import columns
from ppmtl.tasks.base import Metrics

_NAME = 26  # letters of a class name that a plot has room for


def one_line(result: Evaluation) -> str:
    """ "seg miou 0.5123 | cls top1 0.8000 (3 images unlabelled) | det ap50 0.6000 | score 0.6374"."""
    gaps = {task: f" ({count} images unlabelled)" for task, count in result.unlabelled.items()}
    parts = [f"{task} {m.primary} {m.values[m.primary]:.4f}{gaps.get(task, '')}" for task, m in result.metrics.items()]
    return " | ".join([*parts, f"score {result.score:.4f}"])


def text(result: Evaluation, *, classwise: bool = True) -> str:
    """The whole report for a terminal; the challenge's score is its last line."""
    lines: list[str] = []
    for task, metrics in result.metrics.items():
        gap = f"; {result.unlabelled[task]} images without a label not measured" if task in result.unlabelled else ""
        lines.append(f"== {task} ({result.seconds[task]:.3f} s per image{gap})")
        lines += [f"   {name:<22}{_number(value)}" for name, value in metrics.values.items()]
        if classwise and metrics.per_class:
            table = columns(list(metrics.per_class), class_rows(metrics.per_class))
            lines += [f"   {line}" for line in table.splitlines()]
    names = ", ".join(f"{t}.{m.primary}" for t, m in result.metrics.items())
    lines.append(f"score {_number(result.score)}  (mean of {names})")
    return "\n".join(lines)


def write(result: Evaluation, folder: Path, extra: Mapping[str, Any]) -> list[Path]:
    """Writes metrics.json, per-class CSVs, confusion matrices, precision-recall curves, best and worst images.

    Args:
        result: the evaluation.
        folder: made if it is not there.
        extra: what else metrics.json records (weights, config, views).

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = {task: _write_extremes(task, found, folder) for task, found in result.extremes.items()}
    document = {
        **extra,
        "images": images,
        "score": result.score,
        "tasks": {
            task: {
                "primary": m.primary,
                **m.values,
                "seconds_per_image": result.seconds[task],
                **({"unlabelled_images": result.unlabelled[task]} if task in result.unlabelled else {}),
                "per_class": m.per_class,
            }
            for task, m in result.metrics.items()
        },
    }
    written = [folder / "metrics.json"]
    written += [folder / row["file"] for of_task in images.values() for rows in of_task.values() for row in rows]
    with atomic_write(written[0]) as temporary:
        temporary.write_text(json.dumps(without_nan(document), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for task, metrics in result.metrics.items():
        if metrics.per_class:
            written.append(folder / f"{task}_per_class.csv")
            with written[-1].open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([metrics.per_class.keys(), *zip(*metrics.per_class.values(), strict=True)])
        if metrics.confusion is not None:
            written.append(folder / f"{task}_confusion.png")
            _plot_confusion(metrics, written[-1])
        if metrics.curves:
            written.append(folder / f"{task}_precision_recall.png")
            _plot_curves(metrics, written[-1])
    return written


def _write_extremes(task: str, found: Extremes, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Writes <task>_worst_0.jpg, ...; {"worst" and "best": [{"file", "score", "image"}]} comes back."""
    rows: dict[str, list[dict[str, Any]]] = {"worst": [], "best": []}
    for kind, images in (("worst", found.worst), ("best", found.best)):
        for number, image in enumerate(images):
            name = f"{task}_{kind}_{number}.jpg"
            cv2.imencode(".jpg", image.pair[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tofile(folder / name)
            rows[kind].append({"file": name, "score": image.score, "image": image.path})
    return rows


def without_nan(value: Any) -> Any:
    """The value with non-finite numbers as None: JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def _number(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.4f}"


def class_rows(per_class: Mapping[str, Sequence[str | float | None]]) -> list[list[str]]:
    """The cells of a per-class table, one row per class; the columns are those of ``per_class``."""
    counts = {"pixels", "boxes", "images"}
    cells = [
        [c if isinstance(c, str) else (f"{c:.0f}" if head in counts and c is not None else _number(c)) for c in column]
        for head, column in per_class.items()
    ]
    return [list(row) for row in zip(*cells, strict=True)]


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of that many inches."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display needed; slow to import

    return Figure(figsize=(width, height), layout="constrained")


def _plot_confusion(metrics: Metrics, path: Path) -> None:
    assert metrics.confusion is not None
    names = [name if len(name) <= _NAME else name[: _NAME - 1] + "…" for name in map(str, metrics.per_class["class"])]
    names += ["(background)"] * (len(metrics.confusion) - len(names))
    share = metrics.confusion / np.maximum(metrics.confusion.sum(axis=1, keepdims=True), 1)
    side = min(24.0, 3 + 0.32 * len(names))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    shown = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(shown, label="share of the true class", fraction=0.04)
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    if len(names) <= 25:
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            ink = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{share[row, column]:.2f}"[1:] if share[row, column] < 1 else "1",
                      ha="center", va="center", fontsize=6, color=ink)  # fmt: skip
    title = f"{metrics.primary} {metrics.values[metrics.primary]:.4f}"
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title("\n".join(filter(None, (title, metrics.confusion_note))), fontsize=10)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _plot_curves(metrics: Metrics, path: Path) -> None:
    figure = new_figure(7, 5)
    axes = figure.subplots()
    stacked = np.stack([precision for _, precision in metrics.curves.values()])
    for name, (recall, precision) in metrics.curves.items():
        label = f"{name} {precision.mean():.2f}" if len(metrics.curves) <= 20 else None
        axes.plot(recall, precision, linewidth=1, alpha=0.7, label=label)
    recall = next(iter(metrics.curves.values()))[0]
    axes.plot(recall, stacked.mean(axis=0), color="black", linewidth=2.5, label=f"mean {stacked.mean():.3f}")
    axes.set(xlabel="recall", ylabel="precision (IoU 0.50)", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=7, ncol=2)
    figure.savefig(path, dpi=110)
