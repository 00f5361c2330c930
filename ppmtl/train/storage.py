"""Folders of tensors that survive crashes: written beside their place, flushed, renamed, checked by digest when read.

While ``<folder>`` is being replaced, ``.<folder>.new`` is what is written and ``.<folder>.old`` what was there. A process
that is killed leaves one of them behind: :func:`settle` puts it where it belongs or removes it, and
:func:`stand_in` reads it until then. Paddle is not imported here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, TensorSpec, deserialize, safe_open, serialize_file

from ppmtl.files import flush, remove_folder, sha256

STATE = "state.json"
LOGGER = logging.getLogger("ppmtl")
_LEFTOVER = re.compile(r"\.(.+)\.(new|old|gone)\Z")


def write(fresh: Path, tensors: Mapping[str, Mapping[str, np.ndarray]], state: Mapping[str, Any], ordinal: int) -> None:
    """Writes a complete checkpoint into the empty place ``fresh``; everything is on the disk when it returns.

    Args:
        fresh: must not exist.
        tensors: {file stem: {tensor name: array}}; a uint16 array is a bfloat16, as everywhere in Paddle.
        state: what goes into state.json; the manifest is added.
        ordinal: rises from save to save. It says which checkpoint is newer: steps do not, once a run was rewound or
            started anew in the same folder, nor do clocks.

    Raises:
        OSError: from the disk, with its errno.
    """
    fresh.mkdir()
    digests, contents = {}, {}
    for stem, arrays in tensors.items():
        path = fresh / f"{stem}.safetensors"
        _write_tensors(path, arrays)
        digests[path.name] = sha256(path)
        contents[path.name] = {"bytes": path.stat().st_size, "tensors": len(arrays)}
    manifest = {
        "saved_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "ordinal": ordinal,
        **state,
        "digests": digests,
        "contents": contents,
    }
    manifest["manifest_sha256"] = _manifest_digest(json.loads(json.dumps(manifest)))
    (fresh / STATE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    mode = (fresh / STATE).stat().st_mode
    for path in fresh.iterdir():
        path.chmod(mode)  # safetensors makes files that only their owner can read; the rest of a team needs them too
        flush(path)
    flush(fresh)


def beside(folder: Path, kind: str) -> Path:
    """Returns the hidden name beside ``folder`` for what is "new" (being written), "old" (replaced) or "gone"."""
    return folder.with_name(f".{folder.name}.{kind}")


def settle(parent: Path) -> None:
    """Ends what a killed process had begun in ``parent``: a whole checkpoint gets its name, the rest is removed.

    Several processes may do this at once. A folder that holds anything else than our files is left alone.
    """
    for path in sorted(parent.iterdir()):  # .new before .old: the newer one is preferred
        match = _LEFTOVER.match(path.name)
        if match is None or not is_ours(path):
            continue
        folder = parent / match[1]
        if match[2] != "gone" and not os.path.lexists(folder) and not problems(path):
            with contextlib.suppress(OSError):  # another process was quicker, or the disk is read-only
                path.rename(folder)
                LOGGER.warning("%s: recovered; the process that was saving it had been killed", folder)
        elif os.path.lexists(folder) or match[2] != "old":
            remove_folder(path)
            LOGGER.info("%s: removed; a killed process had left it behind", path)


def stand_in(path: Path) -> Path:
    """Returns ``path``, or, while it is absent because a save was killed, the whole checkpoint hidden beside it.

    Args:
        path: a checkpoint folder, or a file in one.
    """
    if os.path.lexists(path):
        return path
    if path.suffix and not os.path.lexists(path.parent):
        return stand_in(path.parent) / path.name
    for kind in ("new", "old"):
        hidden = beside(path, kind)
        if hidden.is_dir() and not problems(hidden):
            LOGGER.warning("%s is absent because a save was interrupted; reading %s", path, hidden)
            return hidden
    return path


def problems(folder: Path, *, digests: bool = True) -> list[str]:
    """Returns what is wrong with a checkpoint, a line each; an empty list means whole.

    Args:
        folder: the checkpoint.
        digests: read every file and compare; False only looks at names and sizes.
    """
    if not (folder / STATE).is_file():
        return [f"{STATE} is missing: it was never finished, or partly deleted"]
    try:
        state = read_manifest(folder / STATE)
    except ValueError as error:
        return [str(error).removeprefix(f"{folder}{os.sep}")]
    recorded = state.get("digests", {})
    found = [] if recorded else [f"{STATE} records no files"]
    for name, digest in recorded.items():
        file = folder / name
        wanted = state.get("contents", {}).get(name, {}).get("bytes")
        if not file.is_file():
            found.append(f"{name} is missing")
        elif wanted is not None and file.stat().st_size != wanted:
            found.append(f"{name} has {file.stat().st_size} bytes instead of {wanted}: truncated or replaced")
        elif digests and sha256(file) != digest:
            found.append(f"{name}: its SHA-256 is not the one recorded in {STATE}: the file is damaged or was replaced")
    return found


def read_manifest(file: Path) -> dict[str, Any]:
    """Returns a state.json.

    Raises:
        ValueError: if it is not whole.
    """
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error}); use another checkpoint") from error
    if not isinstance(state, dict) or not isinstance(state.get("digests", {}), dict):
        raise ValueError(f"{file}: not a checkpoint's manifest; use another checkpoint")
    if state.get("manifest_sha256", digest := _manifest_digest(state)) != digest:
        raise ValueError(
            f"{file}: changed since it was written: damaged, or edited by hand. Use another checkpoint; if the edit was "
            "meant, delete its line manifest_sha256"
        )
    return state


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of a safetensors file; bfloat16 comes as uint16, as Paddle's own ``numpy()`` gives it.

    Raises:
        ValueError: if it is not whole.
    """
    try:
        with safe_open(file, "np") as opened:
            names = list(opened.keys())
            if not any(opened.get_slice(name).get_dtype() == "BF16" for name in names):
                return {name: opened.get_tensor(name) for name in names}
        # numpy has no bfloat16 and safe_open fails on it; this way takes the file's size in memory twice
        arrays = {}
        for name, view in deserialize(file.read_bytes()):
            dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"}.get(view["dtype"])
            code = dtype or f"<{view['dtype'][0].lower()}{int(view['dtype'][1:]) // 8}"
            arrays[name] = np.frombuffer(view["data"], code).reshape(view["shape"])
        return arrays
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error}); use another checkpoint") from error


def _manifest_digest(state: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in state.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    specs = {
        name: TensorSpec(
            dtype="bfloat16" if array.dtype == np.uint16 else array.dtype.name,
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in whole.items()
    }
    try:
        serialize_file(specs, path, metadata={"format": "pd"})  # linear weights are (in, out)
    except SafetensorError as error:  # it swallows the errno, which says what to do
        code = re.search(r"\(os error (\d+)\)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number) if code else str(error), str(path)) from error


def is_ours(folder: Path) -> bool:
    """Returns whether a folder holds nothing but what this module writes."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(p.name == STATE or p.suffix == ".safetensors" or p.name.startswith(".tmp") for p in folder.iterdir())
