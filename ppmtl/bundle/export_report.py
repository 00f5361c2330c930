"""What the check of a bundle found, as JSON for machines and Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppmtl import tables
from ppmtl.bundle.settings import BundleSettings
from ppmtl.bundle.verify import Check
from ppmtl.predict.report import without_nan

Runs = Mapping[str, Sequence[Check]]  # {"float32" or "bfloat16": one check per task}


def problems(runs: Runs) -> list[str]:
    """Everything that is beyond tolerance."""
    return [f"{how}: {problem}" for how, checks in runs.items() for check in checks for problem in check["problems"]]


def write(folder: Path, settings: BundleSettings, runs: Runs, extra: Mapping[str, Any]) -> str:
    """Writes export_report.json (with ``extra``) and export_report.md into the bundle; returns the latter's text."""
    about = {key: getattr(settings, key) for key in ("name", "graph_format", "pointwise")}
    document = without_nan({"passed": not problems(runs), **about, "runs": runs, **extra})
    written = json.dumps(document, indent=1, ensure_ascii=False)
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
        origins = [f"- {check['task']}: first {check['pictures']} images of: {check['from']}" for check in checks]
        parts += [f"## {how}", tables.markdown(heads, rows), "\n".join(origins)]
    found = problems(runs)
    parts.append("**Failed:** " + "; ".join(found) if found else "**Passed.**")
    parts.append(tables.markdown(["file", "MB"], [(f.name, f"{f.bytes / 1e6:.2f}") for f in settings.files]))
    return "\n\n".join(parts) + "\n"


def _rows(check: Check) -> list[list[str]]:
    rows = []
    for name, output in check["outputs"].items():
        allowed = "-" if output["allowed"] is None else f"{output['allowed']:.1e}"
        rows.append([check["task"], name, "", "", f"{output['largest_difference']:.1e}", allowed])
    if check["primary"] is not None:
        numbers = ["n/a" if math.isnan(v) else f"{v:.4f}" for v in check["metrics"][check["primary"]].values()]
        rows.append([check["task"], check["primary"], *numbers, f"{check['primary_may_change_by']:g}"])
    return rows
