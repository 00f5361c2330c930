"""Writes a pretrained trunk as safetensors, tensor by tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ppmtl.models.pretrained import Match, Report, local_file, match
from ppmtl.models.weight_files import open_weights


def convert(path_or_url: str, target: Path) -> Report:
    """Writes the ConvNeXt trunk of a file to ``target`` and returns the report.

    Names are facebook's and PaddleClas's, linear weights (in, out), numbers float32. ``target`` is at any moment the
    old file, absent, or the whole new one.

    Raises:
        ValueError: if ``target`` is no .safetensors name or the source itself, or the source holds no whole trunk.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the output is a .safetensors file; give it that ending")
    source = local_file(path_or_url)
    if target.resolve() == source.resolve():
        raise ValueError(f"{target}: is also the input; write to another name")
    fresh = target.with_name(f".{target.name}.new")
    with open_weights(source) as file:
        report, matches = match(file, None, path_or_url)
        report.require_complete()
        metadata = {
            "format": "pd",
            "source": source.name,
            "source_sha256": report.sha256,
            "source_names": report.naming,
        }
        try:
            with fresh.open("wb") as out:
                _write(out, matches, metadata)
                out.flush()
                os.fsync(out.fileno())
            os.replace(fresh, target)
        finally:
            fresh.unlink(missing_ok=True)
    return report


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
