"""Checkpoints: a folder of tensors (safetensors) and one ``state.json``. Loading executes nothing.

    <folder>/model.safetensors       the weights to evaluate (the average, when EMA is on)
    <folder>/raw.safetensors         the weights that training continues from; only when EMA is on
    <folder>/optimizer.safetensors   moments under structured names
    <folder>/state.json              step, best metric, class names, resolved config, versions, digests

A folder appears under its name only when it is complete: it is written beside it and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

STATE = "state.json"
_STEP = re.compile(r"step_(\d+)\Z")


def save(folder: Path, tensors: Mapping[str, Mapping[str, np.ndarray]], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint so that ``folder`` is, at any moment, the old one, absent or the new one, always whole.

    Args:
        folder: e.g. output/run/step_000100.
        tensors: {file stem: {tensor name: array}}; "model" is required.
        state: what goes into state.json; digests of the tensor files are added.
    """
    assert "model" in tensors
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    digests = {}
    for stem, arrays in tensors.items():
        path = fresh / f"{stem}.safetensors"
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
        digests[path.name] = _digest(path)
        _flush(path)
    (fresh / STATE).write_text(json.dumps({**state, "digests": digests}, indent=1), encoding="utf-8")
    _flush(fresh / STATE)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def step_folder(save_dir: Path, step: int) -> Path:
    """Returns the folder of the checkpoint after ``step`` optimizer steps."""
    return save_dir / f"step_{step:07d}"


def mark_latest(save_dir: Path, folder: Path) -> None:
    """Points ``<save_dir>/latest`` at ``folder`` (a relative link, replaced atomically)."""
    link = save_dir / ".latest.new"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name, target_is_directory=True)
    os.replace(link, save_dir / "latest")


def drop_old(save_dir: Path, keep: int) -> None:
    """Removes all but the ``keep`` newest step checkpoints."""
    steps = sorted(p for p in save_dir.glob("step_*") if _STEP.match(p.name))
    for folder in steps[:-keep]:
        shutil.rmtree(folder)


def read_state(path: str | Path) -> dict[str, Any]:
    """Returns state.json of a checkpoint folder (or of the folder around a weights file), or {} where there is none."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / STATE
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{file}: not readable as JSON ({error}); use another checkpoint") from error


def read_tensors(path: str | Path, stem: str = "model") -> dict[str, np.ndarray]:
    """Returns {name: array} of a checkpoint folder's ``<stem>.safetensors``, or of a safetensors file given directly.

    Raises:
        ValueError: if the path does not exist, is no checkpoint, is damaged, or differs from its recorded digest.
    """
    path = Path(path)
    file = path / f"{stem}.safetensors" if path.is_dir() else path
    if not file.is_file():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise ValueError(
            f"weights: {path} holds no {stem}.safetensors; give a checkpoint folder or a .safetensors file"
            + (f"; beside it are {', '.join(beside[:8])}" if beside else "")
        )
    expected = read_state(file).get("digests", {}).get(file.name)
    if expected is not None and _digest(file) != expected:
        raise ValueError(f"{file}: its SHA-256 is not the one recorded in {STATE}: the file is damaged or was replaced")
    try:
        return dict(load_file(file))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error}); use another checkpoint") from error


def load_weights(model: nn.Layer, arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Puts ``arrays`` into the model.

    Weights of heads that the model was built without (``--tasks``) are left out; anything else must match one to one.

    Raises:
        ValueError: listing missing, unexpected and differently shaped tensors.
    """
    state = model.state_dict()
    heads = {name.split(".")[1] for name in state if name.startswith("heads.")}
    wanted = {n: a for n, a in arrays.items() if not n.startswith("heads.") or n.split(".")[1] in heads}
    missing, unexpected = sorted(state.keys() - wanted.keys()), sorted(wanted.keys() - state.keys())
    shapes = [
        f"{n}: file {list(wanted[n].shape)}, model {list(state[n].shape)}"
        for n in sorted(state.keys() & wanted.keys())
        if list(wanted[n].shape) != list(state[n].shape)
    ]
    if missing or unexpected or shapes:
        lines = [f"{where}: these weights are of another model."]
        for title, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes)):
            if names:
                lines.append(f"  {len(names)} {title}: {'; '.join(names[:4])}{' ...' if len(names) > 4 else ''}")
        lines.append("Use the config.yml saved beside the checkpoint, or change the model's settings to match.")
        raise ValueError("\n".join(lines))
    model.set_state_dict(wanted)


def find_resume(save_dir: Path, given: str) -> Path:
    """Returns the checkpoint folder to resume from.

    Args:
        save_dir: the run's folder.
        given: a checkpoint folder, or "auto" for the newest whole one in ``save_dir``.

    Raises:
        ValueError: if there is none.
    """
    if given != "auto":
        if not (Path(given) / STATE).is_file():
            raise ValueError(f"--resume: {given} is no checkpoint folder (no {STATE} in it); try -r auto")
        return Path(given)
    steps = [p for p in sorted(save_dir.glob("step_*"), reverse=True) if _STEP.match(p.name) and (p / STATE).is_file()]
    if not steps:
        raise ValueError(f"--resume auto: {save_dir} holds no checkpoint yet; start without -r")
    return steps[0]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()  # hashlib.file_digest is newer than Python 3.10
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
