"""Reads the pickles inside ``.pth`` and ``.pdparams`` files as data: nothing that they name is imported or executed.

A pickle is a program: it names functions ("globals") and has them called. Here every name is looked up in a short table
of stand-ins written in this file; a name that is not in it stops the reading. The stand-ins only note what they are
given, so even torch's and numpy's own reconstruction code, written in C, never sees the file.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
# Paddle has no 16-bit unsigned tensors: a numpy uint16 in its files is a bfloat16
_NUMPY_CODES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "u2": "bfloat16",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u1": "uint8", "b1": "bool",
}  # fmt: skip
# Facts about training that whole checkpoints carry beside the tensors: read as nothing, whatever their arguments
_INERT_CALLS = ("torch.device", "torch.Size", "torch.serialization._get_layout")
_INERT_NAMES = tuple(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "int64", "strided"))


@dataclass(frozen=True)
class TorchStorage:
    """Where a torch tensor's numbers lie: member ``data/<key>`` of the zip, ``dtype`` by name."""

    key: str
    dtype: str


@dataclass(frozen=True)
class TorchTensor:
    """A window on a storage; ``offset`` and ``strides`` count elements."""

    storage: TorchStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class NumpyArray:
    """A numpy array as the pickle holds it: raw little-endian bytes and their description."""

    shape: tuple[int, ...] = ()
    dtype = "float32"
    fortran_order = False
    data = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, data = state  # the layout of numpy.ndarray.__reduce__, version 1
        if not isinstance(data, bytes) or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("holds a numpy array of Python objects; only numbers are read")
        self.shape, self.dtype, self.fortran_order, self.data = _sizes(shape), dtype.name, bool(fortran_order), data


class _Dtype:
    """numpy.dtype as the pickle holds it."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _NUMPY_CODES:
            raise pickle.UnpicklingError(f"holds numpy data of type {code!r}; read are {', '.join(_NUMPY_CODES)}")
        self.name = _NUMPY_CODES[code]

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError(f"holds numpy data of byte order {state[1]!r}; only little-endian is read")


def load_pickle(file: IO[bytes], path: Path) -> Any:
    """Returns the object in a pickle: dicts, lists and numbers, with tensors as TorchTensor or NumpyArray.

    Args:
        file: the pickle.
        path: named in messages.

    Raises:
        ValueError: if the pickle names anything outside the table, or is damaged.
    """
    try:
        return _Unpickler(file).load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {error}. Nothing of it was run") from error
    # What the pickle machine raises on a damaged or crafted program, by its documentation and by trying
    except (EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"{path}: not a whole pickle ({type(error).__name__}: {error}); get the file again") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._table = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._table:
            raise pickle.UnpicklingError(
                f"names {full}, which is none of the few names that a file of tensors needs. Do not open it with "
                "torch.load or paddle.load unless you trust its author; if you do, save its tensors alone "
                "(torch.save(state_dict, ...)) and use that file"
            )
        return self._table[full]

    def persistent_load(self, pid: Any) -> TorchStorage:
        if not isinstance(pid, tuple) or len(pid) < 3 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise pickle.UnpicklingError(f"has an unknown kind of storage, {pid!r:.80}")
        key = str(pid[2])
        if not key.isalnum():  # torch numbers its storages; anything else could be a path
            raise pickle.UnpicklingError(f"has a storage with the odd name {key!r:.40}")
        return TorchStorage(key, pid[1].dtype)


@dataclass(frozen=True)
class _StorageType:
    dtype: str


def _stand_ins() -> dict[str, Any]:
    """Returns {global: its stand-in}, made anew for each file: a pickle can set attributes on what it names."""

    class Inert(dict[Any, Any]):
        def __setstate__(self, state: Any) -> None:
            """Ignores attributes (a state dict's ``_metadata``, a Namespace's values)."""

    def nothing(*_: Any) -> None:
        return None

    def encode(text: str, encoding: str) -> bytes:  # how pickles of protocol 2 spell bytes
        return text.encode({"latin1": "latin1"}[encoding])

    def rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TorchTensor:
        if not isinstance(storage, TorchStorage):
            raise pickle.UnpicklingError("builds a tensor from something that is no storage")
        tensor = TorchTensor(storage, _sizes((offset,))[0], _sizes(shape), _sizes(strides))
        if len(tensor.shape) != len(tensor.strides):
            raise pickle.UnpicklingError(f"has a tensor with shape {shape} and strides {strides}")
        return tensor

    def rebuild_parameter(tensor: Any, *_: Any) -> Any:
        return tensor

    def numpy_array(*_: Any) -> NumpyArray:
        return NumpyArray()

    def numpy_dtype(*arguments: Any) -> _Dtype:
        return _Dtype(*arguments)

    table: dict[str, Any] = {
        "collections.OrderedDict": Inert,
        "argparse.Namespace": Inert,
        "builtins.tuple": tuple,  # Paddle pickles a tensor as tuple((name, array))
        "__builtin__.tuple": tuple,
        "_codecs.encode": encode,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_tensor": rebuild_tensor,
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "numpy.ndarray": None,
        "numpy.dtype": numpy_dtype,
    }
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and 2
        table |= {f"{multiarray}._reconstruct": numpy_array, f"{multiarray}.scalar": nothing}
    table |= dict.fromkeys(_INERT_CALLS, nothing) | dict.fromkeys(_INERT_NAMES)
    return table | {name: _StorageType(dtype) for name, dtype in _STORAGES.items()}


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    # below 2**40 elements: larger products are a crafted file, and Python's big integers would not overflow
    if not all(type(n) is int and n >= 0 for n in sizes) or math.prod(sizes) > 1 << 40:
        raise pickle.UnpicklingError(f"has a tensor of impossible size {sizes!r:.80}")
    return sizes
