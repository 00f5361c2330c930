"""Where and with what a run is made, for environment.json and every checkpoint: the first thing that a maintainer asks for."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import paddle

from ppmtl import __version__


def environment() -> dict[str, Any]:
    """{fact: text, number, list of texts or None}: platform, versions, GPUs, how Paddle was built, git revision."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": " ".join(sys.argv),
        "ppmtl": __version__,
    }
    for package in ("paddlepaddle", "paddlepaddle-gpu", "numpy", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"paddle_build": _build()} | _gpus() | {"git": git_revision()}


def git_revision() -> str:
    """The revision of this project's code, with "-dirty" where files were edited."""
    if not (
        Path(__file__).resolve().parents[2] / ".git"
    ).exists():  # an installed package may lie in another's checkout
        return "not a git checkout"
    return _output("git", "describe", "--always", "--dirty") or "not a git checkout"


def _gpus() -> dict[str, Any]:
    """The cards and what drives them; all None where Paddle has no CUDA or finds no card."""
    count = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    names = [str(paddle.device.cuda.get_device_name(index)) for index in range(count)]
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if count else None
    return {
        "gpu_count": count or None,
        "gpu_names": names or None,
        "gpu_driver": driver.splitlines()[0] if driver else None,  # a line per card
        "cuda": _built_with(paddle.version.cuda),
        "cudnn": _built_with(paddle.version.cudnn),
        "cudnn_loaded": paddle.device.get_cudnn_version() if count else None,
    }


def _build() -> str:
    """Paddle's commit and what it was compiled with."""
    asked = {
        name: getattr(paddle.device, f"is_compiled_with_{name}")
        for name in ("cuda", "rocm", "xpu", "cinn", "distribute")
    }
    given = [name for name, compiled in asked.items() if compiled()]
    given += ["mkl"] if paddle.version.mkl() == "ON" else []
    return f"{paddle.version.commit[:10]} with {', '.join(given) or 'nothing'}"


def _built_with(of: Callable[[], Any]) -> str | None:
    return None if of() in (False, "False") else str(of())  # a CPU build says "False"


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints; None if it is not there or fails."""
    if shutil.which(program) is None:
        return None
    here = Path(__file__).resolve().parent
    done = subprocess.run([program, *arguments], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
