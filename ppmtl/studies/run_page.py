"""One HTML page of a run, from the files in its folder: curves, tables, pictures, config. Without Paddle."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl import html_page, tables
from ppmtl.predict.report import class_rows, new_figure
from ppmtl.train import log_file

Line = Mapping[str, Any]
Series = Mapping[str, Sequence[tuple[float, float]]]

_PICTURES = {
    "confusion": "confusion matrix",
    "precision_recall": "precision-recall curves",
}  # as predict/report.py names them
_MANY_CLASSES = 30  # a longer table is folded


def run_page(folder: Path, evaluation: Path) -> str:
    """The page of the run in ``folder``.

    Args:
        folder: save_dir of a run.
        evaluation: what tools/eval.py wrote; need not be there.

    Raises:
        ValueError: if neither of the two holds anything to show, or a file is damaged.
    """
    lines, metrics = log_file.read(folder), _read_json(evaluation / "metrics.json")
    if not lines and not metrics:
        raise ValueError(
            f"{folder}: holds neither {log_file.NAME}, which tools/train.py writes, nor {evaluation / 'metrics.json'}, which "
            "tools/eval.py writes; name the save_dir of a run"
        )
    steps = [line for line in lines if "evaluation" not in line]
    evaluations = [line for line in lines if "evaluation" in line]
    parts = [*_overview(steps, evaluations, metrics), *_training(steps, folder), *_over_steps(evaluations)]
    parts += _tasks(metrics, evaluation) if metrics else _how_to_evaluate(folder)
    return html_page.page(f"Run {folder.resolve().name}", [*parts, *_background(folder)])


def _overview(steps: Sequence[Line], evaluations: Sequence[Line], metrics: Mapping[str, Any]) -> list[str]:
    facts = []
    if steps:
        last = steps[-1]
        facts += [("steps", f"{last['step']} (epoch {last['epoch']})"), ("loss at the end", _number(last["loss"])),
                  ("images per second", f"{np.median([line['ips'] for line in steps]):.1f} (median)"),
                  ("peak memory", f"{last['max_mem']:.0f} MB"),
                  ("from first to last line", str(timedelta(seconds=round(last["time"] - steps[0]["time"]))))]  # fmt: skip
    known = [
        (line["evaluation"]["score"], line["step"]) for line in evaluations if line["evaluation"]["score"] is not None
    ]
    if known:
        best, step = max(known)
        facts.append(("best score in training", f"{best:.4f} at step {step}"))
    if metrics:
        facts.append(("score of the evaluation below", _number(metrics["score"])))
        facts.append(("evaluated", str(metrics.get("weights") or metrics.get("bundle"))))
    return [html_page.block("facts", [tables.html(["", ""], facts)])]


def _training(steps: Sequence[Line], folder: Path) -> list[str]:
    """Curves of everything that the log has numbers of."""
    parts = ["<h2>Training</h2>"]
    if not steps:
        return [*parts, f"<p>No {log_file.NAME}: no curves.</p>"]
    names = list(dict.fromkeys(name for line in steps for name in line))
    losses = [name for name in names if name.startswith("loss_")]  # "loss_seg", or "loss_seg@source" of several sources
    tasks = dict.fromkeys(name.removeprefix("loss_").partition("@")[0] for name in losses)
    terms = {f"terms of {task}": [n for n in names if n.startswith(f"{task}.")] for task in tasks}
    groups = {
        "loss": ["loss", *losses],
        **terms,
        "share of labelled images, where some are not": [n for n in names if n.startswith("labelled_")],
        "learning rate": ["learning_rate"],
        "gradient norm": ["grad_norm"],
        "weight of each task": [n for n in names if n.startswith("weight_")],
        "steps left out (float16 overflow)": [n for n in names if n == "skipped"],
        "seconds per step": ["batch_cost", "data_cost"],
    }
    curves = [
        chart(title, _series(steps, group), log=title == "gradient norm") for title, group in groups.items() if group
    ]
    parts.append(html_page.block("grid", curves))
    if (diagnosis := folder / "diagnosis.png").is_file():
        parts.append(html_page.figure(diagnosis.read_bytes(), "png", "gradients of the tasks in the backbone"))
    return parts


def _over_steps(evaluations: Sequence[Line]) -> list[str]:
    """Curves of what the evaluations during training measured."""
    if not evaluations:
        return []
    lines = [{"step": line["step"], **line["evaluation"]} for line in evaluations]
    names = list(dict.fromkeys(name for line in lines for name in line if name != "step"))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    curves = [chart(title, _series(lines, group)) for title, group in groups.items()]
    return ["<h2>Evaluations during training</h2>", html_page.block("grid", curves)]


def _series(lines: Iterable[Line], names: Iterable[str]) -> Series:
    found = {name: [(line["step"], line[name]) for line in lines if line.get(name) is not None] for name in names}
    return {name: points for name, points in found.items() if points}


def chart(title: str, series: Series, *, log: bool = False) -> str:
    """Lines over steps as an embedded SVG, readable at the width of a phone."""
    import matplotlib  # slow to import
    from matplotlib.ticker import LogFormatter

    drawing = new_figure(4.4, 2.9)
    axes = drawing.subplots()
    for name, points in series.items():
        axes.plot(
            *np.array(points, float).T,
            label=name,
            linewidth=1.4,
            marker="o" if len(points) < 12 else None,
            markersize=3,
        )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # 10, not 10^1
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    if len(series) > 1:
        axes.legend(fontsize=7.5, framealpha=0.7)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters as letters: a quarter of the size
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    return html_page.figure(buffer.getvalue(), "svg+xml", title)


def _tasks(metrics: Mapping[str, Any], folder: Path) -> list[str]:
    parts = []
    for task, found in metrics["tasks"].items():
        values = {k: v for k, v in found.items() if k not in ("primary", "per_class")}
        rows = [(name + (" (primary)" if name == found["primary"] else ""), _number(v)) for name, v in values.items()]
        parts += [f"<h2>Task {escape(task)}</h2>", html_page.block("scroll", [tables.html(["measure", "value"], rows)])]
        if per_class := found["per_class"]:
            table = html_page.block("scroll", [tables.html(list(per_class), class_rows(per_class))])
            many = len(next(iter(per_class.values()))) > _MANY_CLASSES
            parts += ["<h3>Classes</h3>", html_page.folded("all classes", table) if many else table]
        pictures = [(folder / f"{task}_{kind}.png", f"{task}: {text}") for kind, text in _PICTURES.items()]
        shown = [html_page.figure(path.read_bytes(), "png", alt) for path, alt in pictures if path.is_file()]
        parts += [html_page.block("wide", shown)] if shown else []
        parts += _images(metrics.get("images", {}).get(task, {}), metrics.get("legends", {}).get(task, {}), folder)
    return parts


def _images(ranked: Mapping[str, Any], legend: Mapping[str, str], folder: Path) -> list[str]:
    """The worst and the best images, labels left, prediction right, and what the colours mean."""
    parts = []
    for kind, rows in ranked.items():
        shown = [
            html_page.figure((folder / row["file"]).read_bytes(), "jpeg", f"labels and prediction of {Path(row['image']).name}",
                             f"score {row['score']:.3f}: {Path(row['image']).name}")
            for row in rows
        ]  # fmt: skip
        parts += [
            f"<h3>{kind.capitalize()} images by their own score: labels left, prediction right</h3>",
            html_page.block("pairs", shown),
        ]
    if parts and legend:
        entries = [
            f'<span><i style="background:{escape(rgb)}"></i>{escape(name)}</span>' for name, rgb in legend.items()
        ]
        parts.append(html_page.block("legend", entries))
    return parts


def _how_to_evaluate(folder: Path) -> list[str]:
    command = f"python tools/eval.py -c {folder}/config.yml -o weights={folder}/best_model"
    text = "No evaluation yet. Tables, confusion matrices, best and worst images come from"
    return ["<h2>Evaluation</h2>", f"<p>{text} <code>{escape(command)}</code></p>"]


def _background(folder: Path) -> list[str]:
    """Where and with what the run was made."""
    parts = []
    if environment := _read_json(folder / "environment.json"):
        table = tables.html(["", ""], [[fact, value] for fact, value in environment.items() if value is not None])
        parts += ["<h2>Environment</h2>", html_page.block("facts scroll", [table])]
    if (config := folder / "config.yml").is_file():
        text = escape(config.read_text(encoding="utf-8"))
        parts += ["<h2>Config</h2>", html_page.folded("as it ran", f"<pre>{text}</pre>")]
    return parts


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} without a file."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a JSON object ({error}); write it again") from error


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
