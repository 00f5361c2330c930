"""Writes a pretrained backbone, or a whole checkpoint of this project, for other programs, tensor by tensor."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.files import atomic_write
from ppmtl.weights.files import StoredTensor, open_weights
from ppmtl.weights.names import WeightNames
from ppmtl.weights.pretrained import Report, local_file, match


def convert(path_or_url: str, target: Path, names: WeightNames) -> Report:
    """Writes the backbone in a file to ``target``, under our names, as float32, linear weights (in, out).

    Raises:
        ValueError: if ``target`` is no .safetensors or .pdparams name or the source itself, or the source holds no
            complete backbone of the kind that ``names`` describe.
    """
    source = _source(path_or_url, target, ".safetensors", ".pdparams")
    with open_weights(source) as file:
        report, tensors = match(file, names, None, path_or_url)
        report.require_complete()
        if target.suffix == ".pdparams":
            _write_pdparams(target, tensors)
        else:
            origin = {"source": source.name, "source_sha256": report.sha256, "source_names": report.naming}
            _write_safetensors(target, tensors, {"format": "pd", **origin})
    return report


def export_all(path_or_url: str, target: Path) -> int:
    """Writes every tensor of a checkpoint, as it is and under its name, for ``paddle.load``; returns how many.

    Raises:
        ValueError: if ``target`` is no .pdparams name, or the source has no tensor, or linear weights as in torch.
    """
    source = _source(path_or_url, target, ".pdparams")
    with open_weights(source) as file:
        if not file.tensors:
            raise ValueError(f"{source}: holds no tensor, so there is nothing to write; give another file")
        if file.layout == "torch":
            raise ValueError(
                f"{source}: its linear weights lie as in torch, (out, in), and its names are another toolkit's; "
                "--backbone translates a ConvNeXt"
            )
        _write_pdparams(target, file.tensors)
        return len(file.tensors)


def _source(path_or_url: str, target: Path, *endings: str) -> Path:
    if target.suffix not in endings:
        raise ValueError(f"{target}: the output is a {' or '.join(endings)} file; give it that ending")
    source = local_file(path_or_url)
    if target.resolve() == source.resolve():
        raise ValueError(f"{target}: is also the input; write to another name")
    return source


def _write_safetensors(target: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Writes float32 tensors: header length (u64), JSON header padded to 8 bytes, numbers without gaps.

    Not with safetensors' own writer: it needs all tensors in memory, and only its user may read the file that it makes.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(target) as fresh, fresh.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            out.write(tensor.raw().astype("<f4", copy=False).data)


def _write_pdparams(target: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Writes what ``paddle.load`` reads: a pickle of {name: array}."""
    with atomic_write(target) as fresh, fresh.open("wb") as out:
        pickler = _Pickler(out, protocol=4)
        pickler.fast = True  # without the memo, which would keep every array in memory to the end
        pickler.dump(dict(tensors))


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Pickles a tensor of a file as a numpy array, which is read only now."""
        if not isinstance(value, StoredTensor):
            return NotImplemented
        array = value.raw()
        dtype = array.dtype.newbyteorder("<")
        # By the constructor: numpy 2's own way names a module that numpy before 1.26 does not know
        return np.ndarray, (array.shape, dtype, array.astype(dtype, copy=False).tobytes())
