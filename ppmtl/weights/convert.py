"""Writes a pretrained backbone, or a whole checkpoint of this project, for other programs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ppmtl.files import atomic_write
from ppmtl.weights.files import read_weights
from ppmtl.weights.names import WeightNames
from ppmtl.weights.pretrained import Report, local_file, match


def convert(path_or_url: str, target: Path, names: WeightNames) -> Report:
    """Writes the backbone in a file to ``target``, under our names, as float32, linear weights (in, out).

    Raises:
        ValueError: if ``target`` is no .safetensors or .pdparams name or the source itself, or the source holds no
            complete backbone of the kind that ``names`` describe.
    """
    source = _source(path_or_url, target, ".safetensors", ".pdparams")
    report, found = match(read_weights(source), names, None, path_or_url)
    report.require_complete()
    tensors = {name: np.ascontiguousarray(array) for name, array in found.items()}
    if target.suffix == ".pdparams":
        _write_pdparams(target, tensors)
    else:
        about = {"format": "pd", "source": source.name, "source_sha256": report.sha256, "source_names": report.naming}
        with atomic_write(target) as fresh:
            fresh.write_bytes(save(tensors, about))
    return report


def export_all(path_or_url: str, target: Path) -> int:
    """Writes every tensor of a checkpoint, as it is and under its name, for ``paddle.load``; returns how many.

    Raises:
        ValueError: if ``target`` is no .pdparams name, or the source has no tensor, or linear weights as in torch.
    """
    source = _source(path_or_url, target, ".pdparams")
    file = read_weights(source)
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


def _write_pdparams(target: Path, tensors: Mapping[str, np.ndarray]) -> None:
    with atomic_write(target) as fresh, fresh.open("wb") as out:
        _Pickler(out, protocol=4).dump(dict(tensors))


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Arrays by their constructor: numpy 2's own way names a module that numpy before 1.26 does not know."""
        if not isinstance(value, np.ndarray):
            return NotImplemented
        dtype = value.dtype.newbyteorder("<")
        return np.ndarray, (value.shape, dtype, value.astype(dtype, copy=False).tobytes())
