"""Weight files of other toolkits as {name: tensor}, without torch, without Paddle and without running anything.

Read: ``.pth`` (torch's zip format, the default since torch 1.6), ``.pdparams`` (Paddle's pickle), ``.safetensors``.
The format is recognised by the file's first bytes, not by its name: ``paddle.save(x, "a.safetensors")`` writes a
pickle. Tensors are read one by one; only ``.pdparams`` has to be in memory as a whole: its tensors lie inside the pickle.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from ppmtl.weights.names import Shape
from ppmtl.weights.safe_pickle import Window, load_pickle

Layout = Literal["torch", "paddle"]  # of linear weights: torch stores (out, in), Paddle (in, out)

_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the pickled magic number of torch before 1.6
_SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_DTYPES = {name: np.dtype("uint16" if name == "bfloat16" else name) for name in _SAFETENSORS_DTYPES.values()}
_LAYOUTS: dict[str, Layout] = {"pt": "torch", "pd": "paddle", "paddle": "paddle"}
# A member that is missing; an unknown compression, or encryption; damage
_ZIP_ERRORS = (KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file."""

    shape: Shape
    dtype: str  # by name, e.g. "bfloat16"
    raw: Callable[[], np.ndarray]  # reads it from the file, with its own type; a bfloat16 as uint16: numpy has none

    def read(self) -> np.ndarray:
        """The numbers as float32."""
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (self.raw().astype(np.uint32) << 16).view(np.float32)
        return self.raw().astype(np.float32, copy=False)

    @property
    def nbytes(self) -> int:
        """Its size in bytes; 0 for a type that is not read."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize if self.dtype in _DTYPES else 0


@dataclass(frozen=True)
class WeightFile:
    """An open file."""

    path: Path
    tensors: Mapping[str, StoredTensor]  # names in nested dicts are joined with dots
    layout: Layout | None  # how linear weights are stored, if the format says so
    metadata: Mapping[str, str]  # what else it says in words and numbers, e.g. a learning-rate scheduler's state


@contextmanager
def open_weights(path: Path) -> Iterator[WeightFile]:
    """Yields the file's tensors, to be read while the context is open.

    Raises:
        ValueError: if the file is none of the three formats, is damaged, or would run code.
    """
    with path.open("rb") as file:
        start = file.read(64)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            yield _open_torch(file, path)
        elif start[8:9] == b"{":  # before pickles: the length in front of it may begin with any byte
            yield _open_safetensors(file, path)
        elif start.startswith(_LEGACY_TORCH):
            raise ValueError(
                f"{path}: written in torch's format from before 1.6, which is not read. Save it again with a newer "
                "torch: torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pth')"
            )
        elif start[:1] == b"\x80":
            yield _open_paddle(file, path)
        else:
            raise ValueError(f"{path}: {_what_else(start)}; read are .pth (torch zip), .pdparams and .safetensors")


def _what_else(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights (an error or log-in page was downloaded)"
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself (run git lfs pull)"
    return f"not a weights file that is known here (it starts with {start[:8]!r})"


def _open_torch(file: IO[bytes], path: Path) -> WeightFile:
    try:
        archive = zipfile.ZipFile(file)
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError(f"{path}: a zip archive, but not torch's: it has {len(pickles)} data.pkl instead of one")
        root = pickles[0].removesuffix("data.pkl")
        big = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big"
        with archive.open(pickles[0]) as member:
            windows, words = load_pickle(member, path)
    except _ZIP_ERRORS as error:
        raise ValueError(f"{path}: a damaged zip archive ({error}); get the file again") from error

    def storage(key: str) -> IO[bytes]:
        return archive.open(f"{root}data/{key}")

    return WeightFile(path, _from_windows(windows, path, storage, ">" if big else "<"), "torch", words)


def _open_paddle(file: IO[bytes], path: Path) -> WeightFile:
    def storage(key: str) -> IO[bytes]:
        raise KeyError(f"only torch's zip has storages, not {key}")

    windows, words = load_pickle(file, path)
    return WeightFile(path, _from_windows(windows, path, storage, "<"), "paddle", words)


def _from_windows(
    windows: Mapping[str, Window], path: Path, storage: Callable[[str], IO[bytes]], order: Literal["<", ">"]
) -> dict[str, StoredTensor]:
    """The tensors of a pickle; ``storage`` opens the storages outside it, whose bytes have the given order."""

    def stored(name: str, window: Window) -> StoredTensor:
        return StoredTensor(window.shape, window.dtype, lambda: _read(window, storage, order, f"{path}: {name}"))

    return {name: stored(name, window) for name, window in windows.items()}


def _read(window: Window, storage: Callable[[str], IO[bytes]], order: Literal["<", ">"], where: str) -> np.ndarray:
    """The window's numbers, reading no more of its storage than it spans."""
    inside = window.storage if isinstance(window.storage, bytes) else None
    dtype = _DTYPES[window.dtype].newbyteorder(order if inside is None else "<")
    if 0 in window.shape:
        return np.zeros(window.shape, dtype)
    span = 1 + sum((n - 1) * stride for n, stride in zip(window.shape, window.strides, strict=True))
    try:
        with storage(str(window.storage)) if inside is None else io.BytesIO(inside) as file:
            file.seek(window.offset * dtype.itemsize)
            data = file.read(span * dtype.itemsize)
    except _ZIP_ERRORS as error:
        raise ValueError(f"{where}: its storage is missing or damaged ({error}); get the file again") from error
    if len(data) != span * dtype.itemsize:
        raise ValueError(f"{where}: its storage ends too early; get the file again")
    strides = [stride * dtype.itemsize for stride in window.strides]
    return np.lib.stride_tricks.as_strided(np.frombuffer(data, dtype), window.shape, strides, writeable=False)


def _open_safetensors(file: IO[bytes], path: Path) -> WeightFile:
    try:
        with safe_open(path, "np") as checked:  # compares the header with the file
            metadata = checked.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged safetensors file ({error}); get the file again") from error
    # The tensors are read here: safe_open's numpy flavour knows no bfloat16 (TypeError in 0.8.0)
    start = 8 + int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(start - 8))
    header.pop("__metadata__", None)

    def stored(name: str, dtype: str, shape: Shape, begin: int, end: int) -> StoredTensor:
        def raw() -> np.ndarray:
            if dtype not in _DTYPES:
                raise ValueError(f"{path}: {name} has the type {dtype}, which is not read")
            file.seek(start + begin)
            return np.frombuffer(file.read(end - begin), _DTYPES[dtype].newbyteorder("<")).reshape(shape)

        return StoredTensor(shape, dtype, raw)

    tensors = {}
    for name, entry in header.items():
        dtype = _SAFETENSORS_DTYPES.get(entry["dtype"], entry["dtype"])
        tensors[name] = stored(name, dtype, tuple(entry["shape"]), *entry["data_offsets"])
    return WeightFile(path, tensors, _LAYOUTS.get(metadata.get("format", "")), metadata)
