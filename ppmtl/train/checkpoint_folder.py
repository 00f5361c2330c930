"""One checkpoint folder: safetensors files and ``state.json``, the manifest with the size and SHA-256 of each.

The manifest is written last, so a folder that has one is complete. Loading executes nothing. No Paddle here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, TensorSpec, serialize_file

from ppmtl.files import atomic_write, flush, sha256
from ppmtl.weights.location import STATE

DAMAGED = f"its SHA-256 is not the one recorded in {STATE}: the file is damaged or was replaced"


def write(folder: Path, tensors: Mapping[str, Mapping[str, np.ndarray]], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint into a folder that does not exist yet; everything is on the disk when it returns.

    Raises:
        OSError: from the disk, with its errno.
    """
    folder.mkdir()
    digests, contents = {}, {}
    for stem, arrays in tensors.items():
        path = folder / f"{stem}.safetensors"
        _write_tensors(path, arrays)
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors lets only the owner read; a team needs them too
        flush(path)
        digests[path.name] = sha256(path)
        contents[path.name] = {"bytes": path.stat().st_size, "tensors": len(arrays)}
    saved_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = json.loads(json.dumps({**state, "saved_at": saved_at, "digests": digests, "contents": contents}))
    _write_manifest(folder, manifest)


def update(folder: Path, values: Mapping[str, Any]) -> None:
    """Replaces some of what state.json says; the tensors stay. At any moment the old or the new one is there.

    Raises:
        ValueError: if it is missing or damaged.
        OSError: from the disk.
    """
    state = {key: value for key, value in read_manifest(folder).items() if key != "manifest_sha256"}
    _write_manifest(folder, json.loads(json.dumps({**state, **values})))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of state.json; raises ValueError if it is missing or damaged."""
    file = folder / STATE
    if not file.is_file():
        raise ValueError(f"{file} is missing: the checkpoint was never finished, or partly deleted")
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error}); use another checkpoint") from error
    if not isinstance(state, dict) or not all(isinstance(state.get(k, {}), dict) for k in ("digests", "contents")):
        raise ValueError(f"{file}: not a checkpoint's manifest; use another checkpoint")
    if state.get("manifest_sha256", digest := _digest(state)) != digest:
        raise ValueError(
            f"{file}: changed since it was written: damaged, or edited by hand. Use another checkpoint; if the edit was "
            "meant, delete its line manifest_sha256"
        )
    return state


def problems(folder: Path, *, digests: bool = True) -> list[str]:
    """What is wrong with a checkpoint; empty = intact. Without ``digests`` only names and sizes are looked at."""
    try:
        state = read_manifest(folder)
    except ValueError as error:
        return [str(error).removeprefix(f"{folder}{os.sep}")]
    found = [] if state.get("digests") else [f"{STATE} records no files"]
    for name, digest in state.get("digests", {}).items():
        file, recorded = folder / name, state.get("contents", {}).get(name)
        size = recorded.get("bytes") if isinstance(recorded, dict) else None  # None: before sizes were recorded
        if not file.is_file():
            found.append(f"{name} is missing")
        elif size is not None and file.stat().st_size != size:
            found.append(f"{name} has {file.stat().st_size} bytes instead of {size}: truncated or replaced")
        elif digests and sha256(file) != digest:
            found.append(f"{name}: {DAMAGED}")
    return found


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    with atomic_write(folder / STATE) as temporary:
        temporary.write_text(json.dumps({**manifest, "manifest_sha256": _digest(manifest)}, indent=1))


def _digest(state: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in state.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # kept in a variable, for the file is written from their addresses; reshape: a scalar has become a vector
    kept = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    specs = {}
    for name, array in kept.items():
        kind = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
        specs[name] = TensorSpec(dtype=kind, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
    try:
        serialize_file(specs, path, metadata={"format": "pd"})  # linear weights are (in, out)
    except SafetensorError as error:  # it swallows the errno, which says what to do
        code = re.search(r"\(os error (\d+)\)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number) if code else str(error), str(path)) from error
