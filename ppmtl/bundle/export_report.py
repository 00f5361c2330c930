"""What the check of a bundle found, as JSON for machines and Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppmtl.bundle.settings import REPORT_FILE, BundleSettings
from ppmtl.bundle.verify import TaskCheck, as_dict
from ppmtl.predict.report import without_nan

Runs = Mapping[str, Sequence[TaskCheck]]  # {how the bundle ran, e.g. "float32": one check per task}


def problems(runs: Runs) -> list[str]:
    """Returns everything that is beyond tolerance."""
    return [f"{how}: {problem}" for how, checks in runs.items() for check in checks for problem in check.problems]


def write(folder: Path, settings: BundleSettings, runs: Runs, extra: Mapping[str, Any]) -> str:
    """Returns the report as text after writing export_report.json and export_report.md into the bundle.

    Args:
        folder: the bundle.
        settings: of it.
        runs: what was measured.
        extra: what else the JSON records.
    """
    document = {
        "passed": not problems(runs),
        "name": settings.name,
        "graph_format": settings.graph_format,
        "pointwise": settings.pointwise,
        "runs": {how: [as_dict(check) for check in checks] for how, checks in runs.items()},
        **extra,
    }
    path = folder / REPORT_FILE
    path.write_text(json.dumps(without_nan(document), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = _markdown(settings, runs)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def _markdown(settings: BundleSettings, runs: Runs) -> str:
    size = "any size" if settings.input.size is None else f"{settings.input.size[0]} x {settings.input.size[1]} (H x W)"
    lines = [
        f"# {settings.name}: exported as {settings.graph_format}, {size}",
        "",
        f"Weights: {settings.source.weights}, step {settings.source.step}, sha256 {settings.source.weights_sha256[:16]}...",
        "",
        "Largest difference of each output, and each task's metric, training graph against bundle.",
    ]
    for how, checks in runs.items():
        lines += ["", f"## {how}", "", *_table(["task", "what", "training graph", "bundle", "difference", "allowed"])]
        for check in checks:
            lines += _rows(check)
        lines += ["", *_origins(checks)]
    found = problems(runs)
    lines += ["", "**Passed.**" if not found else "**Failed:** " + "; ".join(found)]
    lines += ["", *_table(["file", "MB"]), *(_row([f.name, f"{f.bytes / 1e6:.2f}"]) for f in settings.files)]
    return "\n".join(lines) + "\n"


def _origins(checks: Sequence[TaskCheck]) -> list[str]:
    tasks: dict[str, list[str]] = {}
    for check in checks:
        tasks.setdefault(f"first {check.pictures.count} pictures of: {check.pictures.origin}", []).append(check.task)
    return [f"{', '.join(names)}: {where}" for where, names in tasks.items()]


def _rows(check: TaskCheck) -> list[str]:
    rows = [
        _row([check.task, name, "", "", f"{d.absolute:.1e}", "-" if d.allowed is None else f"{d.allowed:.1e}"])
        for name, d in check.outputs.items()
    ]
    if check.primary is not None:
        before, after = check.metrics[check.primary]
        rows.append(
            _row(
                [
                    check.task,
                    check.primary,
                    _number(before),
                    _number(after),
                    _number(after - before),
                    f"{check.allowed:g}",
                ]
            )
        )
    return rows


def _table(heads: Sequence[str]) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"
