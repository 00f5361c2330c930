"""Weight files of other toolkits as {name: array}, without torch, without Paddle and without running anything.

Read: ``.pth`` (torch's zip format, the default since torch 1.6), ``.pdparams`` (Paddle's pickle), ``.safetensors``.
The format is recognised by the file's first bytes, not by its name: ``paddle.save(x, "a.safetensors")`` writes a
pickle. A bfloat16 is a uint16 here, since numpy has none (and Paddle no 16-bit unsigned numbers). Arrays are read-only,
and those of a .safetensors file come from the disk when they are looked at.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from ppmtl.weights.safe_pickle import Window, load_pickle

Layout = Literal["torch", "paddle"]  # of linear weights: torch stores (out, in), Paddle (in, out)

_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the pickled magic number of torch before 1.6
_SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
                       "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}  # fmt: skip
_LAYOUTS: dict[str, Layout] = {"pt": "torch", "pd": "paddle", "paddle": "paddle"}
# A member that is missing; an unknown compression, or encryption; damage
_ZIP_ERRORS = (KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class WeightFile:
    """What a file holds."""

    path: Path
    tensors: Mapping[str, np.ndarray]  # names in nested dicts are joined with dots
    layout: Layout | None  # how linear weights are stored, if the format says so
    metadata: Mapping[str, str]  # what else it says in words and numbers, e.g. a learning-rate scheduler's state


def dtype_name(array: np.ndarray) -> str:
    """The type of a file's tensor in words, e.g. "bfloat16"."""
    return "bfloat16" if array.dtype == np.uint16 else array.dtype.name


def as_float32(array: np.ndarray) -> np.ndarray:
    """The numbers of a file's tensor as float32; the array itself if it is."""
    if array.dtype == np.uint16:  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def read_weights(path: Path) -> WeightFile:
    """The file's tensors.

    Raises:
        ValueError: if the file is none of the three formats, is damaged, or would run code.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return _read_torch(path)
    if start[8:9] == b"{":  # before pickles: the length in front of it may begin with any byte
        return _read_safetensors(path)
    if start.startswith(_LEGACY_TORCH):
        raise ValueError(
            f"{path}: written in torch's format from before 1.6, which is not read. Save it again with a newer "
            "torch: torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pth')"
        )
    if start[:1] == b"\x80":
        return _read_paddle(path)
    text = start.lstrip().lower()
    what = f"not a weights file that is known here (it starts with {start[:8]!r})"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "is a web page, not weights (an error or log-in page was downloaded)"
    elif text.startswith(b"version https://git-lfs"):
        what = "is a git-lfs pointer, not the file itself (run git lfs pull)"
    raise ValueError(f"{path}: {what}; read are .pth (torch zip), .pdparams and .safetensors")


def _read_torch(path: Path) -> WeightFile:
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                raise ValueError(
                    f"{path}: a zip archive, but not torch's: it has {len(pickles)} data.pkl instead of one"
                )
            root = pickles[0].removesuffix("data.pkl")
            is_big = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big"
            with archive.open(pickles[0]) as member:
                windows, words = load_pickle(member, path)
            keys = {window.storage for window in windows.values() if isinstance(window.storage, str)}
            storages = {key: archive.read(f"{root}data/{key}") for key in keys}
    except _ZIP_ERRORS as error:
        raise ValueError(f"{path}: a damaged zip archive ({error}); get the file again") from error
    return WeightFile(path, _tensors(windows, storages, path, is_big=is_big), "torch", words)


def _read_paddle(path: Path) -> WeightFile:
    with path.open("rb") as file:
        windows, words = load_pickle(file, path)
    return WeightFile(path, _tensors(windows, {}, path), "paddle", words)


def _tensors(
    windows: Mapping[str, Window], storages: Mapping[str, bytes], path: Path, *, is_big: bool = False
) -> dict[str, np.ndarray]:
    """The tensors of a pickle, some of them on storages outside it, whose bytes may be big-endian."""
    tensors = {}
    for name, (storage, kind, offset, shape, strides) in windows.items():
        data = storage if isinstance(storage, bytes) else storages.get(storage, b"")
        native = np.dtype("uint16" if kind == "bfloat16" else kind)
        dtype = native.newbyteorder(">" if is_big and isinstance(storage, str) else "<")
        if 0 in shape:
            tensors[name] = np.zeros(shape, native)
            continue
        span = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if (offset + span) * dtype.itemsize > len(data):
            raise ValueError(f"{path}: {name}: its storage ends too early; get the file again")
        numbers = np.frombuffer(data, dtype, span, offset * dtype.itemsize).astype(native, copy=False)
        steps = [stride * dtype.itemsize for stride in strides]
        tensors[name] = np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)
    return tensors


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, "np") as checked:  # compares the header with the file
            metadata = checked.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged safetensors file ({error}); get the file again") from error
    # Not with safe_open's numpy flavour: it knows no bfloat16 (TypeError in 0.8.0)
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise ValueError(f"{path}: {name} has the type {entry['dtype']}; read are {', '.join(_SAFETENSORS_DTYPES)}")
        begin, end = entry["data_offsets"]
        tensors[name] = (
            data[start + begin : start + end].view(_SAFETENSORS_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        )
    return WeightFile(path, tensors, _LAYOUTS.get(metadata.get("format", "")), metadata)
