"""Paddle graphs to ONNX graphs, each in a process of its own: the converter answers what it cannot do by aborting."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ppmtl.bundle.settings import SUFFIXES

OPSET = 17  # the first with LayerNormalization
_MENDS = {  # in the converter's message: what to do about it
    "only support static input shape": "it needs to know the size: add --input_shape HEIGHT WIDTH",
}


def require_converter() -> None:
    """Raises ValueError, saying how to install it, if paddle2onnx is missing."""
    if importlib.util.find_spec("paddle2onnx") is None:
        raise ValueError("--format onnx needs paddle2onnx: pip install -r requirements-deploy.txt (or --format paddle)")


def convert(graphs: Mapping[Path, Path], timeout_seconds: float = 1800) -> None:
    """Converts graphs; all are tried, whatever happens to one of them.

    Args:
        graphs: {saved .json graph without suffix: ONNX file to write}.
        timeout_seconds: for each.

    Raises:
        ValueError: naming every graph that failed, the converter's own words, and what works instead.
    """
    failed = {}
    for source, target in graphs.items():
        words = _convert(source, target, timeout_seconds)
        if words is not None:
            failed[source.name] = words
    if not failed:
        return
    lines = [f"--format onnx: the converter failed on {', '.join(failed)}"]
    for name, words in failed.items():
        lines.append(f"  {name}: {words}")
        lines += [f"    {mend}" for text, mend in _MENDS.items() if text in words]
    fine = [path.name for path in graphs if path.name not in failed]
    lines.append(
        f"Converted: {', '.join(fine) or 'none'}. --format paddle can do all of them; --tasks leaves heads out."
    )
    raise ValueError("\n".join(lines))


def _convert(source: Path, target: Path, timeout_seconds: float) -> str | None:
    """Returns None when ``target`` was written, else what the converter said."""
    graph, parameters = (source.name + suffix for suffix in SUFFIXES["paddle-json"])
    command = [
        *(sys.executable, "-m", "paddle2onnx.command", "--model_dir", str(source.parent)),
        *("--model_filename", graph, "--params_filename", parameters, "--save_file", str(target)),
        # No optimiser: ONNX Runtime folds constants itself, and polygraphy, the default, installs itself from the network
        *("--opset_version", str(OPSET), "--optimize_tool", "None"),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return f"gave up after {timeout_seconds:.0f} s"
    if result.returncode == 0 and target.is_file():
        return None
    spoken = [line for line in (result.stdout + result.stderr).splitlines() if "[ERROR]" in line or "Error:" in line]
    said = "; ".join(line.split("[Paddle2ONNX]")[-1].strip() for line in spoken)
    return f"{said or 'no message'} (exit code {result.returncode})"
