"""Pickles of tensors, read without executing anything.

A pickle is a program: it names Python functions ("globals") and has them called. Here every name is looked up in a
short table of stand-ins written in this file; a name that is not in it stops the reading. The stand-ins only note what
they are given, so even torch's and numpy's own reconstruction code, written in C, never sees the file.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
# Paddle has no 16-bit unsigned tensors: a numpy uint16 in its files is a bfloat16
_NUMPY_CODES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "u2": "bfloat16",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u1": "uint8", "b1": "bool",
}  # fmt: skip
# Facts about training that whole checkpoints carry beside the tensors: read as nothing, whatever their arguments
_INERT_CALLS = ("torch.device", "torch.Size", "torch.serialization._get_layout")
_INERT_NAMES = tuple(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "int64", "strided"))
_GENERATED_NAMES = "StructuredToParameterName@@"  # Paddle's table of names that it makes up anew in every program


# Tuples, not dataclasses: a pickle's BUILD opcode could give those other values after they were checked
class Window(NamedTuple):
    """A tensor on a storage that others may share.

    Attributes:
        storage: the key of a member of torch's zip, or a numpy array's own little-endian bytes.
        dtype: by name, e.g. "bfloat16".
        offset, strides: count elements.
    """

    storage: str | bytes
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Storage(NamedTuple):
    dtype: str
    key: str = ""  # of a type of storage


class _NumpyDtype:
    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _NUMPY_CODES:
            raise pickle.UnpicklingError(f"holds numpy data of type {code!r}; read are {', '.join(_NUMPY_CODES)}")
        self.name = _NUMPY_CODES[code]

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError(f"holds numpy data of byte order {state[1]!r}; only little-endian is read")


class _NumpyArray:
    """A numpy array as its own pickles build it: empty at first, then given a state."""

    window: Window | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, data = state  # the layout of numpy.ndarray.__reduce__, version 1
        self.window = _numpy_window(shape, dtype, data, fortran_order)


def load_pickle(file: IO[bytes], path: Path) -> tuple[dict[str, Window], dict[str, str]]:
    """Reads a pickle of nested dicts; names inside them are joined with dots.

    Args:
        file: the pickle.
        path: named in messages.

    Returns:
        The tensors, and whatever else it says in words and numbers, e.g. a learning-rate scheduler's state.

    Raises:
        ValueError: if the pickle names anything outside the table, or is damaged.
    """
    try:
        leaves = dict(_leaves(_Unpickler(file).load()))
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {error}. Nothing of it was run") from error
    # What the pickle machine raises on a damaged or crafted program, by its documentation and by trying
    except (EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"{path}: a damaged pickle ({type(error).__name__}: {error}); get the file again") from error
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Window)}
    words = {name: str(leaf) for name, leaf in leaves.items() if name and not isinstance(leaf, Window)}
    return tensors, words


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, Window, word or number) of nested dicts; anything else in them is passed over."""
    seen: set[int] = set()  # a crafted file may nest a dict in itself, or one dict ten times in each of ten others

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if type(node) is tuple and len(node) == 2:
            node = node[1]  # Paddle's (name, array)
        if isinstance(node, _NumpyArray):
            node = node.window
        if isinstance(node, Window | str | int | float):
            yield prefix[:-1], node
        elif isinstance(node, Mapping) and id(node) not in seen and prefix.count(".") < 50:
            seen.add(id(node))
            for key, item in node.items():
                if key != _GENERATED_NAMES:
                    yield from walk(item, f"{prefix}{key}.")

    return walk(tree, "")


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

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 3 or pid[0] != "storage" or not isinstance(pid[1], _Storage):
            raise pickle.UnpicklingError(f"has an unknown kind of storage, {pid!r:.80}")
        if not (isinstance(pid[2], str) and pid[2].isalnum()):  # torch numbers them; anything else could be a path
            raise pickle.UnpicklingError(f"has a storage with the odd name {pid[2]!r:.40}")
        return _Storage(pid[1].dtype, pid[2])


def _stand_ins() -> dict[str, Any]:
    """{global: its stand-in}, made anew for each file: a pickle can set attributes on the functions that it names."""

    class Inert(dict[Any, Any]):
        def __setstate__(self, state: Any) -> None:
            """Ignores attributes (a state dict's ``_metadata``, a Namespace's values)."""

    def nothing(*_: Any) -> None:
        return None

    def encode(text: str, encoding: str) -> bytes:  # how pickles of protocol 2 spell bytes
        return text.encode({"latin1": "latin1"}[encoding])

    def torch_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Window:
        if not isinstance(storage, _Storage) or not storage.key:
            raise pickle.UnpicklingError("builds a tensor from something that is no storage")
        shape, strides = _sizes(shape), _sizes(strides)
        if len(shape) != len(strides):
            raise pickle.UnpicklingError(f"has a tensor with shape {shape} and strides {strides}")
        return Window(storage.key, storage.dtype, _sizes((offset,))[0], shape, strides)

    table: dict[str, Any] = {
        "collections.OrderedDict": Inert,
        "argparse.Namespace": Inert,
        "builtins.tuple": tuple,  # Paddle pickles a tensor as tuple((name, array))
        "__builtin__.tuple": tuple,
        "_codecs.encode": encode,
        "torch._utils._rebuild_tensor_v2": torch_tensor,
        "torch._utils._rebuild_tensor": torch_tensor,
        "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        "numpy.ndarray": lambda *arguments: _numpy_window(*arguments),  # called in what convert.py writes
        "numpy.dtype": lambda *arguments: _NumpyDtype(*arguments),
    }
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and 2
        table |= {f"{multiarray}._reconstruct": lambda *_: _NumpyArray(), f"{multiarray}.scalar": nothing}
    table |= dict.fromkeys(_INERT_CALLS, nothing) | dict.fromkeys(_INERT_NAMES)
    return table | {f"torch.{name}Storage": _Storage(dtype) for name, dtype in _STORAGES.items()}


def _numpy_window(shape: Any, dtype: Any, data: Any, fortran_order: Any = False) -> Window:
    if not isinstance(data, bytes) or not isinstance(dtype, _NumpyDtype):
        raise pickle.UnpicklingError("holds a numpy array of Python objects; only numbers are read")
    shape = _sizes(shape)
    strides = [math.prod(shape[:axis] if fortran_order else shape[axis + 1 :]) for axis in range(len(shape))]
    return Window(data, dtype.name, 0, shape, tuple(strides))


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    # below 2**40 elements: larger products are a crafted file, and Python's big integers would not overflow
    if not all(type(n) is int and n >= 0 for n in sizes) or math.prod(sizes) > 1 << 40:
        raise pickle.UnpicklingError(f"has a tensor of impossible size {sizes!r:.80}")
    return sizes
