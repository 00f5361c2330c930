"""Weight files of other toolkits as {name: array}, read tensor by tensor, without torch and without running anything.

Read: ``.pth`` (torch's zip format, the default since torch 1.6), ``.pdparams`` (Paddle's pickle), ``.safetensors``.
The format is recognised by the file's first bytes, not by its name: ``paddle.save(x, "a.safetensors")`` writes a
pickle. Only ``.pdparams`` has to be in memory as a whole, once: its tensors lie inside the pickle.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ppmtl.weights.safe_pickle import NumpyArray, TorchTensor, load_pickle

Layout = Literal["torch", "paddle"]  # of linear weights: torch stores (out, in), Paddle (in, out)

_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the pickled magic number of torch before 1.6
_SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NUMPY_CODES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "b1",
}  # fmt: skip
_NAME_TABLE = "StructuredToParameterName@@"
_MAX_HEADER = 100 << 20  # bytes; safetensors' own limit


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file.

    Attributes:
        shape: as stored.
        dtype: by name, e.g. "bfloat16".
        raw: returns it with its own type, a bfloat16 as uint16 (numpy has none); each call reads the file again.
    """

    shape: tuple[int, ...]
    dtype: str
    raw: Callable[[], np.ndarray]

    def read(self) -> np.ndarray:
        """Returns it as a float32 array."""
        return _to_float32(self.raw(), self.dtype)

    @property
    def nbytes(self) -> int:
        """Returns its size in bytes; 0 for a type that is not read."""
        code = _NUMPY_CODES.get(self.dtype)
        return math.prod(self.shape) * np.dtype(code).itemsize if code else 0


@dataclass(frozen=True)
class WeightFile:
    """An open file.

    Attributes:
        tensors: names in nested dicts are joined with dots.
        layout: how linear weights are stored, if the format says so.
        metadata: what else the file says in words and numbers, e.g. a learning-rate scheduler's state.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    layout: Layout | None
    metadata: Mapping[str, str] = field(default_factory=dict)


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
        elif start.startswith(_LEGACY_TORCH):
            raise ValueError(
                f"{path}: written in torch's format from before 1.6, which is not read. Save it again with a newer "
                "torch: torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pth')"
            )
        elif start[:1] == b"\x80":
            tree = load_pickle(file, path)
            tensors = {name: _from_numpy(leaf, path) for name, leaf in _flat(tree, NumpyArray)}
            yield WeightFile(path, tensors, "paddle", _said(tree))
        elif start[8:9] == b"{":
            yield _open_safetensors(file, path)
        else:
            raise ValueError(f"{path}: {_what_else(start)}; read are .pth (torch zip), .pdparams and .safetensors")


def _what_else(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights (an error or log-in page was downloaded)"
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself (run git lfs pull)"
    return f"not a weights file that is known here (it starts with {start[:8]!r})"


def _flat(value: Any, leaf_type: type | tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, tensor) of nested dicts; anything else in them (epoch, arguments) is passed over."""
    seen: set[int] = set()  # a crafted file may nest a dict in itself, or one dict ten times in each of ten others

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], leaf_type):
            node = node[1]  # Paddle's (name, array)
        if isinstance(node, leaf_type):
            yield prefix[:-1], node
        elif isinstance(node, dict) and id(node) not in seen and prefix.count(".") < 50:
            seen.add(id(node))
            for key, item in node.items():
                yield from walk(item, f"{prefix}{key}.")

    return walk(value, "")


def _said(tree: Any) -> dict[str, str]:
    """Returns the words and numbers of nested dicts, but for Paddle's table of generated names."""
    leaves = _flat(tree, (str, int, float))
    return {name: str(leaf) for name, leaf in leaves if name and not name.startswith(_NAME_TABLE)}


def _to_float32(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Returns numbers as float32; ``raw`` of a bfloat16 is uint16, the upper half of a float32."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32, copy=False)


def _numpy_dtype(dtype: str, order: Literal["<", ">"] = "<") -> np.dtype[Any]:
    return np.dtype(order + _NUMPY_CODES[dtype])


def _open_torch(file: IO[bytes], path: Path) -> WeightFile:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: the zip archive is not whole ({error}); get the file again") from error
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError(f"{path}: a zip archive, but not torch's: it has {len(pickles)} data.pkl instead of one")
    root = pickles[0].split("/")[0]
    order: Literal["<", ">"] = "<"
    if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") == b"big":
        order = ">"
    with archive.open(pickles[0]) as member:
        tree = load_pickle(member, path)
    leaves = list(_flat(tree, TorchTensor))

    def stored(name: str, tensor: TorchTensor) -> StoredTensor:
        def read() -> np.ndarray:
            return _read_torch(archive, f"{root}/data/{tensor.storage.key}", tensor, order, f"{path}: {name}")

        return StoredTensor(tensor.shape, tensor.storage.dtype, read)

    return WeightFile(path, {name: stored(name, tensor) for name, tensor in leaves}, "torch", _said(tree))


def _read_torch(
    archive: zipfile.ZipFile, member: str, tensor: TorchTensor, order: Literal["<", ">"], where: str
) -> np.ndarray:
    """Returns a window of a storage, reading no more of it than the window spans."""
    dtype = _numpy_dtype(tensor.storage.dtype, order)
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    span = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    try:
        with archive.open(member) as file:
            file.seek(tensor.offset * dtype.itemsize)
            raw = file.read(span * dtype.itemsize)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{where}: its storage is missing or damaged ({error}); get the file again") from error
    if len(raw) != span * dtype.itemsize:
        raise ValueError(f"{where}: its storage ends too early; get the file again")
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(np.frombuffer(raw, dtype), tensor.shape, strides, writeable=False)


def _from_numpy(array: NumpyArray, path: Path) -> StoredTensor:
    def read() -> np.ndarray:
        dtype = _numpy_dtype(array.dtype)
        if len(array.data) != math.prod(array.shape) * dtype.itemsize:
            raise ValueError(f"{path}: an array of shape {array.shape} has {len(array.data)} bytes; get the file again")
        order: Literal["F", "C"] = "F" if array.fortran_order else "C"
        return np.frombuffer(array.data, dtype).reshape(array.shape, order=order)

    return StoredTensor(array.shape, array.dtype, read)


def _open_safetensors(file: IO[bytes], path: Path) -> WeightFile:
    # Not safetensors.safe_open: its numpy flavour cannot read bfloat16 (TypeError in 0.8.0)
    length = int.from_bytes(file.read(8), "little")
    try:
        header = dict(json.loads(file.read(min(length, _MAX_HEADER))))
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        entries = {
            str(name): (
                _SAFETENSORS_DTYPES.get(e["dtype"], e["dtype"]),
                tuple(e["shape"]),
                *map(int, e["data_offsets"]),
            )
            for name, e in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: its safetensors header is damaged; get the file again") from error
    size = path.stat().st_size - 8 - length
    tensors = {}
    for name, (dtype, shape, start, end) in entries.items():
        known = dtype in _SAFETENSORS_DTYPES.values()
        whole = 0 <= start <= end <= size and all(type(n) is int and n >= 0 for n in shape)
        if not whole or (known and end - start != math.prod(shape) * _numpy_dtype(dtype).itemsize):
            raise ValueError(f"{path}: {name} lies outside the file or has another size than its shape; get it again")
        tensors[name] = StoredTensor(shape, dtype, _safetensors_reader(file, 8 + length + start, dtype, shape))
    layout: dict[str, Layout] = {"pt": "torch", "pd": "paddle", "paddle": "paddle"}
    return WeightFile(path, tensors, layout.get(metadata.get("format", "")), metadata)


def _safetensors_reader(file: IO[bytes], offset: int, dtype: str, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        if dtype not in _SAFETENSORS_DTYPES.values():
            raise ValueError(f"{file.name}: a tensor has the type {dtype}, which is not read")
        file.seek(offset)
        raw = file.read(math.prod(shape) * _numpy_dtype(dtype).itemsize)
        return np.frombuffer(raw, _numpy_dtype(dtype)).reshape(shape)

    return read
