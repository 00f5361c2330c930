"""Checkpoints: a folder of tensors (safetensors) and one ``state.json``. Loading executes nothing.

    <folder>/model.safetensors       the weights to evaluate (the average, when EMA is on)
    <folder>/raw.safetensors         the weights that training continues from; only when EMA is on
    <folder>/optimizer.safetensors   moments under structured names
    <folder>/state.json              step, best metric, class names, resolved config, versions, digests

A folder appears under its name only when it is complete (``storage.py`` says how). Nothing here imports paddle before a
model is given, so that tools can look into checkpoints quickly.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppmtl.files import remove_folder, replace_folder, sha256
from ppmtl.train import storage
from ppmtl.train.storage import LOGGER, STATE

if TYPE_CHECKING:
    from paddle import nn

_STEP = re.compile(r"step_(\d+)\Z")
_MEND = {
    errno.ENOSPC: "Free some room (of the step_* folders only the newest is needed to go on)",
    errno.EDQUOT: "Your quota on this disk is used up: free some room (of the step_* folders only the newest is needed)",
    errno.EFBIG: "The limit on the size of a file is lower than this (ulimit -f): raise it",
    errno.EROFS: "The disk is mounted read-only, perhaps after an error: see dmesg, or choose another save_dir",
}


def save(folder: Path, tensors: Mapping[str, Mapping[str, np.ndarray]], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint so that, whatever happens, the old one or the new one can be read under ``folder``.

    Args:
        folder: e.g. output/run/step_0000100; replaced if it exists.
        tensors: {file stem: {tensor name: array}}; "model" is required. uint16 means bfloat16.
        state: what goes into state.json; digests, sizes and time are added.

    Raises:
        OSError: if it could not be written: what was needed, what is free, what is still whole, how to mend it.
    """
    assert "model" in tensors
    save_dir = folder.parent
    save_dir.mkdir(parents=True, exist_ok=True)
    needed = bytes_needed(tensors)
    check_room(save_dir, needed)
    fresh = storage.beside(folder, "new")
    try:
        storage.write(fresh, tensors, state, 1 + max((age(p)[0] for p in _folders(save_dir)), default=0))
        replace_folder(fresh, folder)
    except OSError as error:
        remove_folder(fresh)
        raise _failure(
            f"{folder} could not be written: {error.strerror or error}", save_dir, needed, error.errno
        ) from error


def check_room(save_dir: Path, needed: int) -> None:
    """Checks that one more checkpoint fits on the disk; what killed runs left in ``save_dir`` is removed first.

    Args:
        save_dir: need not exist yet.
        needed: bytes; see :func:`bytes_needed`.

    Raises:
        OSError: ENOSPC, saying how much is missing and how to mend it.
    """
    if save_dir.is_dir():
        storage.settle(save_dir)
    if _free(save_dir) < needed:
        raise _failure(f"{save_dir}: not enough room for a checkpoint, nothing was written", save_dir, needed)


def bytes_needed(tensors: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """Returns the size of a checkpoint of these arrays (or tensors) in bytes, rounded up."""
    parts = [array for arrays in tensors.values() for array in arrays.values()]
    return sum(int(part.nbytes) + 256 for part in parts) + (64 << 10)  # names in headers; state.json, blocks


def step_folder(save_dir: Path, step: int) -> Path:
    """Returns the folder of the checkpoint after ``step`` optimizer steps."""
    return save_dir / f"step_{step:07d}"


def mark_latest(save_dir: Path, folder: Path) -> None:
    """Points ``<save_dir>/latest`` at ``folder`` (a relative link, replaced atomically).

    Where links are not possible this only warns: resuming does not need it.
    """
    link = save_dir / ".latest.link"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        os.replace(link, save_dir / "latest")
    except OSError as error:
        LOGGER.warning("%s: could not be pointed at %s (%s)", save_dir / "latest", folder.name, error.strerror)


def drop_old(save_dir: Path, keep: int) -> None:
    """Removes step checkpoints that are older than the ``keep`` newest whole ones.

    Nothing is removed before the newest whole one has been read and found whole: damaged ones count for nothing.
    """
    kept = 0
    for folder in _steps(save_dir):
        if kept >= keep:
            gone = storage.beside(
                folder, "gone"
            )  # renamed first: a half-deleted folder must not look like a damaged one
            folder.rename(gone)
            remove_folder(gone)
        # the newest by its digests, which costs a reading of it; the others by their sizes
        elif not storage.problems(folder, digests=kept == 0):
            kept += 1


def read_state(path: str | Path) -> dict[str, Any]:
    """Returns state.json of a checkpoint folder (or of the folder around a weights file), or {} where there is none.

    Raises:
        ValueError: if it is damaged.
    """
    path = storage.stand_in(Path(path))
    file = (path if path.is_dir() else path.parent) / STATE
    return storage.read_manifest(file) if file.is_file() else {}


def read_tensors(path: str | Path, stem: str = "model") -> dict[str, np.ndarray]:
    """Returns {name: array} of a checkpoint folder's ``<stem>.safetensors``, or of a safetensors file given directly.

    bfloat16 comes as uint16.

    Raises:
        ValueError: if the path does not exist, is no checkpoint, is damaged, or differs from its recorded digest.
    """
    path = storage.stand_in(Path(path))
    file = path / f"{stem}.safetensors" if path.is_dir() else path
    if not file.is_file():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise ValueError(
            f"weights: {path} holds no {stem}.safetensors; give a checkpoint folder or a .safetensors file"
            + (f"; beside it are {', '.join(beside[:8])}" if beside else "")
        )
    expected = read_state(file).get("digests", {}).get(file.name)
    if expected is not None and sha256(file) != expected:
        raise ValueError(f"{file}: its SHA-256 is not the one recorded in {STATE}: the file is damaged or was replaced")
    return storage.read_safetensors(file)


def load_weights(model: nn.Layer, arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Puts ``arrays`` into the model, converted to its precision where the two differ.

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
    model.set_state_dict({name: _as_type_of(state[name], array) for name, array in wanted.items()})


def find_resume(save_dir: Path, given: str) -> Path:
    """Returns the checkpoint folder to resume from, read and found whole.

    Args:
        save_dir: the run's folder; what a killed save left in it is put right first.
        given: a checkpoint folder, or "auto" for the newest whole one in ``save_dir``.

    Raises:
        ValueError: if there is none; what was found is listed.
    """
    if given != "auto":
        folder = storage.stand_in(Path(given))
        if not (folder / STATE).is_file():
            raise ValueError(f"--resume: {given} is no checkpoint folder (no {STATE} in it); try -r auto")
        if wrong := storage.problems(folder):
            raise ValueError(f"--resume: {given} is damaged: {'; '.join(wrong)}; -r auto takes the newest whole one")
        return folder
    if save_dir.is_dir():
        storage.settle(save_dir)
    skipped = []
    for folder in _steps(save_dir, unreadable=sys.maxsize):  # first, so that it is said; they are never whole
        if not (wrong := storage.problems(folder)):
            return folder
        skipped.append(f"{folder.name}: {'; '.join(wrong)}")
        LOGGER.warning("--resume auto: skipping %s, which is damaged: %s", folder, "; ".join(wrong))
    if not skipped:
        raise ValueError(f"--resume auto: {save_dir} holds no checkpoint yet; start without -r")
    lines = [f"--resume auto: none of the {len(skipped)} checkpoints in {save_dir} is whole:", *skipped]
    lines.append("Restore one from a backup, or start anew without -r; -o weights=<folder or file> starts from weights")
    raise ValueError("\n  ".join(lines))


def age(folder: Path, unreadable: int = 0) -> tuple[int, int]:
    """Returns (ordinal of the save, step), which rises with every save; ``unreadable`` is the ordinal of damaged ones."""
    try:
        ordinal = int(storage.read_manifest(folder / STATE).get("ordinal", 0))
    except (ValueError, TypeError, OSError):
        ordinal = unreadable
    step = re.search(r"step_(\d+)", folder.name)
    return ordinal, int(step[1]) if step else 0


def _folders(save_dir: Path) -> list[Path]:
    return [p.parent for p in save_dir.glob(f"[!.]*/{STATE}") if not p.parent.is_symlink()]


def _steps(save_dir: Path, *, unreadable: int = 0) -> list[Path]:
    """Returns the step checkpoints, the last one saved first; ``unreadable`` is the age of those whose manifest is damaged."""
    steps = [p for p in save_dir.glob("step_*") if _STEP.match(p.name)]
    return sorted(steps, key=lambda p: age(p, unreadable), reverse=True)


def _as_type_of(parameter: Any, array: np.ndarray) -> Any:
    """Returns the array, converted if it and the parameter are floats of different precision."""
    wanted = str(parameter.dtype).rpartition(".")[2]
    stored = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
    if stored == wanted or "float" not in stored or "float" not in wanted:
        return array
    import paddle

    return paddle.to_tensor(array).astype(wanted)


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _failure(what: str, save_dir: Path, needed: int, number: int | None = errno.ENOSPC) -> OSError:
    whole = [p.name for p in sorted(_folders(save_dir)) if not storage.problems(p, digests=False)]
    kept = f"Still whole there: {', '.join(whole)}" if whole else "No checkpoint was there before"
    mend = _MEND.get(number or 0, "Mend the cause")
    then = "then continue with -r auto" if any(_STEP.match(name) for name in whole) else "then start again"
    return OSError(
        number or errno.EIO,
        f"{what}. {needed / 2**20:.1f} MiB are needed, {_free(save_dir) / 2**20:.1f} MiB are free. {kept}. {mend}, {then}",
    )
