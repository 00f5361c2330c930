"""What the check of a bundle found, as JSON for machines and Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from ppmtl import tables
from ppmtl.bundle.settings import BundleSettings
from ppmtl.bundle.verify import TaskCheck
from ppmtl.predict.report import without_nan

Runs = Mapping[str, Sequence[TaskCheck]]  # {how the bundle ran, e.g. "float32": one check per task}


def problems(runs: Runs) -> list[str]:
    """Everything that is beyond tolerance."""
    return [f"{how}: {problem}" for how, checks in runs.items() for check in checks for problem in check.problems]


def write(folder: Path, settings: BundleSettings, runs: Runs, extra: Mapping[str, Any]) -> str:
    """Writes export_report.json (with ``extra``) and export_report.md into the bundle; returns the latter's text."""
    document = {
        "passed": not problems(runs),
        "name": settings.name,
        "graph_format": settings.graph_format,
        "pointwise": settings.pointwise,
        "runs": {how: [_as_dict(check) for check in checks] for how, checks in runs.items()},
        **extra,
    }
    written = json.dumps(without_nan(document), indent=1, ensure_ascii=False)
    (folder / "export_report.json").write_text(written + "\n", encoding="utf-8")
    text = _markdown(settings, runs)
    (folder / "export_report.md").write_text(text, encoding="utf-8")
    return text


def _markdown(settings: BundleSettings, runs: Runs) -> str:
    size, source = settings.input.size, settings.source
    shown = "any size" if size is None else f"{size[0]} x {size[1]} (H x W)"
    parts = [
        f"# {settings.name}: exported as {settings.graph_format}, {shown}",
        f"Weights: {source.weights}, step {source.step}, sha256 {source.weights_sha256[:16]}...",
        "Largest difference of each output, and each task's metric, training graph against bundle.",
    ]
    heads = ["task", "what", "training graph", "bundle", "difference", "allowed"]
    for how, checks in runs.items():
        rows = [row for check in checks for row in _rows(check)]
        origins = [f"- {check.task}: first {check.count} images of: {check.origin}" for check in checks]
        parts += [f"## {how}", tables.markdown(heads, rows), "\n".join(origins)]
    found = problems(runs)
    parts.append("**Passed.**" if not found else "**Failed:** " + "; ".join(found))
    parts.append(tables.markdown(["file", "MB"], [(f.name, f"{f.bytes / 1e6:.2f}") for f in settings.files]))
    return "\n\n".join(parts) + "\n"


def _rows(check: TaskCheck) -> list[list[str]]:
    rows = [
        [check.task, name, "", "", f"{d.largest_difference:.1e}", "-" if d.allowed is None else f"{d.allowed:.1e}"]
        for name, d in check.outputs.items()
    ]
    if check.primary is not None:
        numbers = map(_number, astuple(check.metrics[check.primary]))
        rows.append([check.task, check.primary, *numbers, f"{check.primary_may_change_by:g}"])
    return rows


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _as_dict(check: TaskCheck) -> dict[str, Any]:
    fields = asdict(check)
    return {"pictures": fields.pop("count"), "from": fields.pop("origin"), **fields}
