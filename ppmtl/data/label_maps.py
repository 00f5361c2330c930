"""Label files <-> arrays. An unreadable file is an error that names it. Images are read by ``ppmtl/data/images.py``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ppmtl.data.findings import FileError
from ppmtl.data.images import read_bytes


def read_label_map(path: str | Path) -> np.ndarray:
    """A PNG's class numbers as (H, W) uint8. Palette files give their indices, not their colours.

    Raises:
        ValueError: if the file is missing, empty, cut off, not a PNG, has colour or alpha channels, or holds a value
            above 255; the message names the path and how to convert it.
    """
    data = read_bytes(path)
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise FileError(
            path,
            f"a label map must be a PNG file, this one starts with {data[:4].hex(' ')}; other formats may "
            "blur class numbers (JPEG does): export the labels again as single-channel PNG",
            "label_format",
        )
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            mode, labels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on bad PNGs
        problem = f"this PNG is damaged or cut off ({error}); copy or export it again"
        raise FileError(path, problem, "broken_label") from error
    if labels.ndim != 2:
        kind = "grey + alpha" if mode == "LA" else mode
        raise FileError(
            path,
            f"a label map needs one channel with the class number of each pixel, this PNG is {kind}; "
            "map its colours to class numbers and save it as 8-bit grey PNG",
            "label_colour",
        )
    if labels.max() > 255:
        raise FileError(
            path,
            f"16-bit label map with values up to {labels.max()}, allowed are 0..255; map them to class numbers",
            "label_value",
        )
    labels = labels.astype(np.uint8, copy=False)
    depth = data[24]  # of the header chunk, in bits
    if mode == "L" and depth < 8:  # Pillow stretches 2 and 4-bit greys to 0..255; undo it, or class 3 becomes 255
        labels = labels // np.uint8(255 // (2**depth - 1))
    return labels


def write_label_map(path: str | Path, labels: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> None:
    """Writes class numbers (H, W) uint8 as a PNG with a palette: programs read the numbers, viewers show the colours.

    Args:
        path: the file.
        labels: what :func:`read_label_map` gives back. OpenCV gives the colours instead.
        colors: RGB of classes 0, 1, ...; other values are black.
    """
    image = Image.fromarray(labels)
    image.putpalette(np.resize(np.array([*colors, *[(0, 0, 0)] * 256], np.uint8), (256, 3)).tobytes())
    image.save(path, "PNG")
