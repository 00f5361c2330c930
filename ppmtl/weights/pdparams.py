"""Writes ``.pdparams``, Paddle's file of weights, tensor by tensor and without Paddle.

The file is what ``paddle.save(layer.state_dict(), ...)`` writes: a pickle of {structured name: numpy array}. It is put
together here rather than by ``pickle.dump`` for two reasons: numpy 2 writes a module name that numpy before 1.26 does not
know, which is what the older toolkits around Paddle are pinned to; and pickle keeps every tensor in memory to its end.

Source: https://docs.python.org/3/library/pickletools.html; numpy.ndarray.__reduce__ and numpy.dtype.__reduce__.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

_EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
_CODES = {"f8", "f4", "f2", "u2", "i8", "i4", "i2", "i1", "u1", "b1"}  # u2 is how Paddle spells a bfloat16


def write_pdparams(out: BinaryIO, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes (name, array) pairs as they come; only one array has to be in memory at a time.

    Raises:
        ValueError: if an array is of a type that Paddle's files do not have.
    """
    out.write(b"\x80\x04}(")
    for name, array in arrays:
        code = array.dtype.str[1:]
        if code not in _CODES:
            raise ValueError(
                f"{name}: {array.dtype} is no type of a .pdparams file; allowed are {', '.join(sorted(_CODES))}"
            )
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
        out.write(_text(name) + _EMPTY_ARRAY + b"(K\x01(" + b"".join(map(_integer, array.shape)) + b"t")
        out.write(_dtype(code) + b"\x89\x8e" + struct.pack("<Q", little.nbytes))
        out.write(little.reshape(-1).view(np.uint8).data)
        out.write(b"tb")
    out.write(b"u.")


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def _dtype(code: str) -> bytes:
    order = b"|" if code in ("i1", "u1", "b1") else b"<"
    state = b"(K\x03X\x01\x00\x00\x00" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    return b"cnumpy\ndtype\n" + _text(code) + b"\x89\x88\x87R" + state + b"b"
