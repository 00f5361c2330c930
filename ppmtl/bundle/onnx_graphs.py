"""Paddle graphs to ONNX graphs, each in a process of its own: what the converter cannot do, it answers by aborting."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ppmtl.bundle.settings import SUFFIXES

OPSET = 17  # the first with LayerNormalization
_TIMEOUT_SECONDS = 1800  # per graph


def require_converter() -> None:
    """Raises ValueError if paddle2onnx is missing."""
    if importlib.util.find_spec("paddle2onnx") is None:
        raise ValueError("--format onnx needs paddle2onnx: pip install -r requirements-deploy.txt (or --format paddle)")


def convert(stems: Sequence[str], source: Path, target: Path) -> None:
    """Converts ``source``/<stem>.json to ``target``/<stem>.onnx; all are tried, and ValueError names those that failed."""
    failed = {stem: words for stem in stems if (words := _convert(source, stem, target / f"{stem}.onnx"))}
    if not failed:
        return
    lines = [f"--format onnx: the converter failed on {', '.join(failed)}"]
    for stem, words in failed.items():
        lines.append(f"  {stem}: {words}")
        if "only support static input shape" in words:
            lines.append("    it needs to know the size: add --input_shape HEIGHT WIDTH")
    fine = ", ".join(stem for stem in stems if stem not in failed) or "none"
    lines.append(f"Converted: {fine}. --format paddle can do all of them; --tasks leaves heads out.")
    raise ValueError("\n".join(lines))


def _convert(source: Path, stem: str, target: Path) -> str:
    """What the converter said; nothing when ``target`` was written."""
    graph, parameters = (stem + suffix for suffix in SUFFIXES["paddle-json"])
    command = [
        *(sys.executable, "-m", "paddle2onnx.command", "--model_dir", str(source)),
        *("--model_filename", graph, "--params_filename", parameters, "--save_file", str(target)),
        # No optimiser: ONNX Runtime folds constants itself, and polygraphy, the default, installs itself from the network
        *("--opset_version", str(OPSET), "--optimize_tool", "None"),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"gave up after {_TIMEOUT_SECONDS} s"
    if result.returncode == 0 and target.is_file():
        return ""
    spoken = [line for line in (result.stdout + result.stderr).splitlines() if "[ERROR]" in line or "Error:" in line]
    words = "; ".join(line.split("[Paddle2ONNX]")[-1].strip() for line in spoken)
    return f"{words or 'no message'} (exit code {result.returncode})"
