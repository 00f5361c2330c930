"""The checkpoints of a run: saved so that a kill at any moment loses none, found again, loaded into a model.

    step_0000100/  best_model/  latest -> step_0000100
        model.safetensors       the weights to evaluate (the average, when EMA is on)
        raw.safetensors         the weights that training continues from; only when EMA is on
        optimizer.safetensors   moments under structured names; not in best_model
        state.json              step, best metric, class names, resolved config, versions, digests

A checkpoint is written into the staging directory ``.<name>.new``; what it replaces is renamed to ``.<name>.old``; then it
gets its name. After a kill in between, readers take the hidden one (``weights/location.py``) and the next run renames it
(:func:`recover`). Paddle is not imported before a model is given.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppmtl.files import remove_folder, replace_folder, sha256
from ppmtl.train.checkpoint_folder import DAMAGED, STATE, problems, read_manifest, write
from ppmtl.weights.files import read_weights
from ppmtl.weights.location import checkpoint_folder_of, find_weights, locate

if TYPE_CHECKING:
    from paddle import nn

LOGGER = logging.getLogger("ppmtl")
HIDDEN = re.compile(r"\.(step_\d+|best_model)\.(new|old)")


def save(folder: Path, tensors: Mapping[str, Mapping[str, np.ndarray]], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint; at any moment the old one or the new one can be read under ``folder``.

    Args:
        folder: e.g. output/run/step_0000100; replaced if it exists.
        tensors: {file stem: {tensor name: array}}; "model" is required. uint16 means bfloat16.
        state: what goes into state.json; digests, sizes and time are added.

    Raises:
        OSError: if it could not be written: what was needed, what is free, what is still intact, how to go on.
    """
    save_dir, needed = folder.parent, bytes_needed(tensors)
    check_room(save_dir, needed)
    number = 1 + max((ordinal(path) for path in newest_first(save_dir)), default=0)
    staging = folder.with_name(f".{folder.name}.new")
    try:
        write(staging, tensors, {**state, "ordinal": number})
        replace_folder(staging, folder)
    except OSError as error:
        remove_folder(staging)
        what = f"{folder} could not be written: {error.strerror or error}"
        raise _failure(what, save_dir, needed, error.errno) from error


def check_room(save_dir: Path, needed: int) -> None:
    """Raises OSError if ``needed`` bytes do not fit on the disk; what killed runs left in the folder is removed first."""
    save_dir.mkdir(parents=True, exist_ok=True)
    recover(save_dir)
    if shutil.disk_usage(save_dir).free < needed:
        raise _failure(f"{save_dir}: not enough room for a checkpoint, nothing was written", save_dir, needed)


def bytes_needed(tensors: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """The size of a checkpoint of these arrays in bytes, rounded up."""
    parts = [array for arrays in tensors.values() for array in arrays.values()]
    return sum(int(part.nbytes) + 256 for part in parts) + (64 << 10)  # names in headers; state.json, blocks


def recover(save_dir: Path) -> None:
    """Finishes what a killed save began: a complete hidden checkpoint gets its name if that is free, others are removed."""
    for hidden in sorted(save_dir.glob(".*")):  # .new before .old
        if match := HIDDEN.fullmatch(hidden.name):
            folder = save_dir / match[1]
            with contextlib.suppress(OSError):  # another process was quicker, or the disk is read-only
                if (hidden / STATE).is_file() and not folder.exists():
                    hidden.rename(folder)
                    LOGGER.warning("%s: recovered; the process that was saving it had been killed", folder)
                else:
                    remove_folder(hidden)


def step_folder(save_dir: Path, step: int) -> Path:
    """The folder of the checkpoint after ``step`` optimizer steps."""
    return save_dir / f"step_{step:07d}"


def mark_latest(save_dir: Path, folder: Path) -> None:
    """Points ``<save_dir>/latest`` at ``folder``; only a warning where links are not possible, as nothing needs it."""
    link = save_dir / ".latest.link"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        link.replace(save_dir / "latest")
    except OSError as error:
        LOGGER.warning("%s: could not be pointed at %s (%s)", save_dir / "latest", folder.name, error.strerror)


def ordinal(folder: Path, unreadable: int = 0) -> int:
    """The number of the save. Steps do not say which one is newer (a run may go back), nor do clocks (they are set)."""
    try:
        return int(read_manifest(folder).get("ordinal", 0))
    except (ValueError, TypeError, OverflowError, OSError):
        return unreadable


def newest_first(save_dir: Path) -> list[Path]:
    """The step checkpoints, the last one saved first; before them those whose manifest is damaged, so that it is said."""
    steps = [path for path in save_dir.glob("step_*") if path.name[5:].isdecimal()]
    return sorted(steps, key=lambda path: (ordinal(path, unreadable=sys.maxsize), int(path.name[5:])), reverse=True)


def drop_old(save_dir: Path, keep: int) -> None:
    """Keeps the ``keep`` newest intact step checkpoints; once there are so many, removes all others."""
    kept: list[Path] = []
    extra: list[Path] = []
    for folder in newest_first(save_dir):  # the newest is read before anything is removed; of the others sizes must do
        intact = len(kept) < keep and not problems(folder, digests=not kept)
        (kept if intact else extra).append(folder)
    for folder in extra if len(kept) == keep else ():
        gone = folder.rename(folder.with_name(f".{folder.name}.old"))  # half a folder never has its name
        (gone / STATE).unlink(missing_ok=True)  # first: then what a kill leaves is not recovered
        remove_folder(gone)


def find_resume(save_dir: Path, given: str) -> Path:
    """The checkpoint to resume from, read and found intact: the folder ``given``, or for "auto" the newest intact one.

    Raises:
        ValueError: if there is none; what was found is listed.
    """
    if given != "auto":
        if wrong := problems(folder := locate(Path(given))):
            raise ValueError(f"--resume {given}: not intact: {'; '.join(wrong)}; -r auto takes the newest intact one")
        return folder
    recover(save_dir)
    damaged = []
    for folder in newest_first(save_dir):
        if not (wrong := problems(folder)):
            return folder
        damaged.append(f"{folder.name}: {'; '.join(wrong)}")
        LOGGER.warning("--resume auto: skipping %s, which is damaged: %s", folder, "; ".join(wrong))
    if not damaged:
        raise ValueError(f"--resume auto: {save_dir} holds no checkpoint yet; start without -r")
    first = f"--resume auto: none of the {len(damaged)} checkpoints in {save_dir} is intact:"
    last = "Restore one from a backup, or start anew without -r; -o weights=<folder or file> starts from weights"
    raise ValueError("\n  ".join([first, *damaged, last]))


def read_state(path: str | Path) -> dict[str, Any]:
    """state.json of a checkpoint folder, or of the folder around a weights file; {} where there is none."""
    folder = checkpoint_folder_of(locate(Path(path)))
    return read_manifest(folder) if (folder / STATE).is_file() else {}


def read_tensors(path: str | Path, stem: str = "model") -> dict[str, np.ndarray]:
    """{name: array} of a checkpoint's ``<stem>.safetensors``, or of what ``find_weights`` takes; bfloat16 comes as uint16.

    Raises:
        ValueError: if the path does not exist, is no checkpoint, is damaged, or differs from its recorded digest.
    """
    path = find_weights(path) if stem == "model" else locate(Path(path))
    file = path / f"{stem}.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"weights: {path} holds no {stem}.safetensors; give a checkpoint folder that has one")
    expected = read_state(file).get("digests", {}).get(file.name)
    if expected is not None and sha256(file) != expected:
        raise ValueError(f"{file}: {DAMAGED}")
    return {name: array.copy() for name, array in read_weights(file).tensors.items()}  # they are read-only


def load_weights(model: nn.Layer, arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Puts ``arrays`` into the model, converted to its precision where the two differ.

    Weights of heads that the model was built without (``--tasks``) are left out; anything else must match one to one.

    Raises:
        ValueError: listing missing, unexpected and differently shaped tensors.
    """
    import paddle

    state = model.state_dict()
    heads = {name.split(".")[1] for name in state if name.startswith("heads.")}
    wanted = {n: a for n, a in arrays.items() if not n.startswith("heads.") or n.split(".")[1] in heads}
    shapes = {n: (list(wanted[n].shape), list(state[n].shape)) for n in sorted(state.keys() & wanted.keys())}
    differences = {
        "missing": sorted(state.keys() - wanted.keys()),
        "unexpected": sorted(wanted.keys() - state.keys()),
        "other shape": [f"{n}: file {ours}, model {theirs}" for n, (ours, theirs) in shapes.items() if ours != theirs],
    }
    if any(differences.values()):
        lines = [f"{where}: these weights are of another model."]
        for title, names in differences.items():
            if names:
                lines.append(f"  {len(names)} {title}: {'; '.join(names[:4])}{' ...' if len(names) > 4 else ''}")
        lines.append("Use the config.yml saved beside the checkpoint, or change the model's settings to match.")
        raise ValueError("\n".join(lines))
    fitting: dict[str, Any] = {}
    for name, array in wanted.items():
        built = str(state[name].dtype).rpartition(".")[2]
        stored = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
        convert = stored != built and "float" in stored and "float" in built
        fitting[name] = paddle.to_tensor(array).astype(built) if convert else array
    model.set_state_dict(fitting)


def _failure(what: str, save_dir: Path, needed: int, number: int | None = errno.ENOSPC) -> OSError:
    folders = sorted(path for path in save_dir.glob("[!.]*") if not path.is_symlink())
    intact = ", ".join(path.name for path in folders if not problems(path, digests=False))
    fix = "Free some room (of the step_* folders only the newest is needed to go on)"
    if number not in (errno.ENOSPC, errno.EDQUOT):
        fix = "Raise the limit on file sizes (ulimit -f)" if number == errno.EFBIG else "Fix the cause"
    then = "continue with -r auto" if "step_" in intact else "start again"
    needs = f"{needed / 2**20:.1f} MiB are needed, {shutil.disk_usage(save_dir).free / 2**20:.1f} MiB are free"
    return OSError(
        number or errno.EIO, f"{what}. {needs}. Still intact there: {intact or 'nothing'}. {fix}, then {then}"
    )
