"""What the comparison of a bundle found, as JSON for machines and Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ppmtl import tables
from ppmtl.bundle.settings import SINGLE_FILE, BundleSettings
from ppmtl.bundle.verify import INT8, INT8_SINGLE, REFERENCE, Check, Runs, problems
from ppmtl.predict.report import without_nan


def write_report(folder: Path, settings: BundleSettings, runs: Runs, extra: Mapping[str, Any]) -> str:
    """Writes export_report.json (with ``extra``) and export_report.md into the bundle; returns the latter's text."""
    found, size, source = problems(runs), settings.input.size, settings.source
    about = {key: getattr(settings, key) for key in ("name", "graph_format", "pointwise")}
    document = without_nan({"passed": not found, **about, "runs": runs, **extra})
    written = json.dumps(document, indent=1, ensure_ascii=False)
    (folder / "export_report.json").write_text(written + "\n", encoding="utf-8")
    shown = "any size" if size is None else f"{size[0]} x {size[1]} (H x W)"
    parts = [
        f"# {settings.name}: exported as {settings.graph_format}, {shown}",
        f"Weights: {source.weights}, step {source.step}, sha256 {source.weights_sha256[:16]}...",
        "Largest difference of each output, and each task's metric, training graph against bundle.",
    ]
    for how, checks in runs.items():
        both = ("float32", "8 bit") if how in (INT8, INT8_SINGLE) else (REFERENCE, "bundle")
        heads = ["task", "what", *both, "difference", "allowed"]
        origins = [f"- {check['task']}: first {check['pictures']} images of: {check['from']}" for check in checks]
        parts += [
            f"## {how}",
            tables.markdown(heads, [row for check in checks for row in _rows(check)]),
            *([_speed(checks)] if how in (INT8, INT8_SINGLE) else []),
            "\n".join(origins),
        ]
    parts.append("**Failed:** " + "; ".join(found) if found else "**Passed.**")
    sizes = [(file.name, file.bytes) for file in settings.files]
    if (folder / SINGLE_FILE).is_file():
        sizes.append((SINGLE_FILE, (folder / SINGLE_FILE).stat().st_size))
    parts.append(tables.markdown(["file", "MB"], [(name, f"{size / 1e6:.2f}") for name, size in sizes]))
    text = "\n\n".join(parts) + "\n"
    (folder / "export_report.md").write_text(text, encoding="utf-8")
    return text


def _speed(checks: Iterable[Check]) -> str:
    """The table of medians; the two took turns, input by input, so whatever else the machine did hit both."""
    rows = []
    for check in checks:
        before, after = check["ms_per_input"].values()
        rows.append([check["task"], f"{before:.1f}", f"{after:.1f}", f"{after / before:.2f}"])
    return tables.markdown(["task alone", "float32, ms per input", "8 bit, ms per input", "ratio"], rows)


def _rows(check: Check) -> list[list[str]]:
    rows = []
    for name, output in check["outputs"].items():
        allowed = "-" if output["allowed"] is None else f"{output['allowed']:.1e}"
        rows.append([check["task"], name, "", "", f"{output['largest_difference']:.1e}", allowed])
    if check["primary"] is not None:
        numbers = ["n/a" if math.isnan(v) else f"{v:.4f}" for v in check["metrics"][check["primary"]].values()]
        rows.append([check["task"], check["primary"], *numbers, f"{check['primary_may_change_by']:g}"])
    return rows
