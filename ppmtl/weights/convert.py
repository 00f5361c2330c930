"""Writes a pretrained trunk, or a whole checkpoint of this project, for other programs, tensor by tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ppmtl.weights.files import open_weights
from ppmtl.weights.pdparams import write_pdparams
from ppmtl.weights.pretrained import Match, Report, local_file, match


def convert(path_or_url: str, target: Path) -> Report:
    """Writes the ConvNeXt trunk of a file to ``target`` and returns the report.

    Names are facebook's and PaddleClas's, linear weights (in, out), numbers float32. ``target`` is at any moment the
    old file, absent, or the whole new one.

    Raises:
        ValueError: if ``target`` is no .safetensors or .pdparams name or the source itself, or the source holds no
            whole trunk.
    """
    _require_ending(target, ".safetensors", ".pdparams")
    source = local_file(path_or_url)
    with open_weights(source) as file:
        report, matches = match(file, None, path_or_url)
        report.require_complete()
        metadata = {
            "format": "pd",
            "source": source.name,
            "source_sha256": report.sha256,
            "source_names": report.naming,
        }
        with _replacing(target, source) as out:
            if target.suffix == ".pdparams":
                write_pdparams(out, ((found.name, found.read()) for found in matches))
            else:
                _write(out, matches, metadata)
    return report


def export_all(path_or_url: str, target: Path) -> int:
    """Writes every tensor of a checkpoint, as it is and under its name, for ``paddle.load``; returns how many.

    Raises:
        ValueError: if ``target`` is no .pdparams name, or the source's linear weights lie as in torch.
    """
    _require_ending(target, ".pdparams")
    source = local_file(path_or_url)
    with open_weights(source) as file:
        if file.layout == "torch":
            raise ValueError(
                f"{source}: its linear weights lie as in torch, (out, in), and its names are another toolkit's; "
                "--trunk translates a ConvNeXt"
            )
        with _replacing(target, source) as out:
            write_pdparams(out, ((name, tensor.raw()) for name, tensor in file.tensors.items()))
        return len(file.tensors)


def _require_ending(target: Path, *endings: str) -> None:
    if target.suffix not in endings:
        raise ValueError(f"{target}: the output is a {' or '.join(endings)} file; give it that ending")


@contextmanager
def _replacing(target: Path, source: Path) -> Iterator[BinaryIO]:
    """Yields a file that takes the place of ``target`` when the block ends well; otherwise nothing changes."""
    if target.resolve() == source.resolve():
        raise ValueError(f"{target}: is also the input; write to another name")
    fresh = target.with_name(f".{target.name}.new")
    try:
        with fresh.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def _write(out: BinaryIO, matches: Sequence[Match], metadata: dict[str, str]) -> None:
    """Writes the safetensors format: header length (u64), JSON header padded to 8 bytes, tensors without gaps."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for found in matches:
        start, end = end, end + 4 * math.prod(found.shape)
        header[found.name] = {"dtype": "F32", "shape": list(found.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for found in matches:
        out.write(found.read().astype("<f4", copy=False).data)
