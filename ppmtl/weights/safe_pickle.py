"""Pickles of tensors, read without executing anything.

A pickle is a program: it names Python functions ("globals") and has them called. Here a name outside a short list stops the
reading, and a call of one inside it is only written down. What was written down is checked, and turned into tensors, when
the program has ended and can change nothing any more.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

_STORAGES = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8", "torch.BoolStorage": "bool",
}  # fmt: skip
# Paddle has no 16-bit unsigned tensors: a numpy uint16 in its files is a bfloat16
_NUMPY_CODES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "u2": "bfloat16",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u1": "uint8", "b1": "bool",
}  # fmt: skip
_TORCH_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_TORCH_PARAMETER = "torch._utils._rebuild_parameter"
_NUMPY_ARRAY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")  # numpy 1 and 2
_DICTS = ("collections.OrderedDict", "argparse.Namespace")
_TUPLES = ("builtins.tuple", "__builtin__.tuple")  # Paddle pickles a tensor as tuple((name, array))
_ALLOWED = {
    *_STORAGES, *_TORCH_TENSOR, _TORCH_PARAMETER, *_NUMPY_ARRAY, "numpy.ndarray", "numpy.dtype", "_codecs.encode",
    # Facts about training that whole checkpoints carry beside the tensors
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "torch.device", "torch.Size", "torch.strided",
    "torch.serialization._get_layout", "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16", "torch.int64",
}  # fmt: skip
# What the pickle machine raises on a damaged or crafted program, by its documentation and by trying
_DAMAGE = (
    EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, OverflowError, ValueError, RecursionError,
)  # fmt: skip
_GENERATED_NAMES = "StructuredToParameterName@@"  # Paddle's table of names that it makes up anew in every program


class Window(NamedTuple):
    """A tensor on a storage that others may share; offset and strides count elements."""

    storage: str | bytes  # the key of a member of torch's zip, or a numpy array's own little-endian bytes
    dtype: str  # by name, e.g. "bfloat16"
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_pickle(file: IO[bytes], path: Path) -> tuple[dict[str, Window], dict[str, str]]:
    """The tensors in a pickle of nested dicts, and what else it says in words and numbers; names are joined with dots.

    Raises:
        ValueError: if the pickle names anything outside the list, or is damaged. The message names ``path``.
    """
    try:
        leaves = dict(_leaves(_Unpickler(file).load()))
        tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Window)}
        words = {name: str(leaf) for name, leaf in leaves.items() if name and name not in tensors}
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {error}. Nothing of it was run") from error
    except _DAMAGE as error:
        raise ValueError(f"{path}: a damaged pickle ({type(error).__name__}: {error}); get the file again") from error
    return tensors, words


class _Global(NamedTuple):
    """Stands for a function or class that the pickle names."""

    name: str

    def __call__(self, *arguments: Any) -> _Call:
        return _Call(self.name, arguments)


class _Call:
    """A call that the pickle asked for, or a storage outside it; ``state`` is what its result was given later."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        # A class is needed here; a new one for each file, because a pickle can set attributes on what it names.
        # Attributes of its objects (a state dict's _metadata, a Namespace's values) are ignored.
        self._dict = type("_Dict", (dict,), {"__setstate__": lambda *_: None})

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _DICTS:
            return self._dict
        if full in _TUPLES:
            return tuple
        if full in _ALLOWED:
            return _Global(full)
        raise pickle.UnpicklingError(
            f"names {full}, which is none of the few names that a file of tensors needs. Do not open it with "
            "torch.load or paddle.load unless you trust its author; if you do, save its tensors alone "
            "(torch.save(state_dict, ...)) and use that file"
        )

    def persistent_load(self, pid: Any) -> _Call:
        return _Call("storage", tuple(pid))


def _leaves(tree: Any) -> Iterator[tuple[str, Window | str | int | float]]:
    """Yields (dotted name, tensor, word or number) of nested dicts; anything else in them is passed over."""
    seen: set[int] = set()  # a crafted file may nest a dict in itself, or one dict ten times in each of ten others

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if type(node) is tuple and len(node) == 2:
            node = node[1]  # Paddle's (name, array)
        if isinstance(node, _Call):
            node = _window(node)
        if isinstance(node, Window | str | int | float):
            yield prefix[:-1], node
        elif isinstance(node, dict) and id(node) not in seen and prefix.count(".") < 50:
            seen.add(id(node))
            for key, item in node.items():
                if key != _GENERATED_NAMES:
                    yield from walk(item, f"{prefix}{key}.")

    return walk(tree, "")


def _window(call: _Call) -> Window | None:
    """The tensor that a call builds, or None if it builds something else."""
    if call.name == _TORCH_PARAMETER:
        call = call.arguments[0]
    if call.name in _TORCH_TENSOR:
        return _torch_window(*call.arguments[:4])
    if call.name in _NUMPY_ARRAY:
        _, shape, dtype, fortran_order, data = call.state  # the layout of numpy.ndarray.__reduce__, version 1
    elif call.name == "numpy.ndarray":  # as convert.py writes it
        (shape, dtype, data), fortran_order = call.arguments, False
    else:
        return None
    if isinstance(data, _Call) and data.name == "_codecs.encode":  # how pickles of protocol 2 spell bytes
        data = data.arguments[0].encode("latin1")
    shape = _sizes(shape)
    strides = [math.prod(shape[:axis] if fortran_order else shape[axis + 1 :]) for axis in range(len(shape))]
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("holds a numpy array of Python objects; only numbers are read")
    code, order = dtype.arguments[0], dtype.state[1]
    if dtype.name != "numpy.dtype" or code not in _NUMPY_CODES or order not in ("<", "|"):
        read = ", ".join(_NUMPY_CODES)
        raise pickle.UnpicklingError(f"holds numpy data of type {order!r}{code!r}; read are {read}, little-endian")
    return Window(data, _NUMPY_CODES[code], 0, shape, tuple(strides))


def _torch_window(storage: Any, offset: Any, shape: Any, strides: Any) -> Window:
    if not isinstance(storage, _Call) or storage.name != "storage":
        raise pickle.UnpicklingError("builds a tensor from something that is no storage")
    kind, dtype, key = storage.arguments[:3]
    if kind != "storage" or not isinstance(dtype, _Global) or dtype.name not in _STORAGES:
        raise pickle.UnpicklingError(f"has an unknown kind of storage, {storage.arguments!r:.80}")
    if not isinstance(key, str) or not key.isalnum():  # torch numbers its storages; anything else could be a path
        raise pickle.UnpicklingError(f"has a storage with the odd name {key!r:.40}")
    (offset,), shape = _sizes([offset]), _sizes(shape)
    strides = tuple(_sizes([stride])[0] for stride in strides)  # one by one: their product says nothing
    if len(shape) != len(strides):
        raise pickle.UnpicklingError(f"has a tensor with shape {shape} and strides {strides}")
    return Window(key, _STORAGES[dtype.name], offset, shape, strides)


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    # below 2**40 elements: larger products are a crafted file, and Python's big integers would not overflow
    if not all(type(n) is int and n >= 0 for n in sizes) or math.prod(sizes) > 1 << 40:
        raise pickle.UnpicklingError(f"has a tensor of impossible size {sizes!r:.80}")
    return sizes
