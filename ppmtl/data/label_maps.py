"""Label files -> arrays. An unreadable file is an error that names it. Pictures are read by ``ppmtl/data/images.py``."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ppmtl.data.images import read_bytes

_PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3  # PNG colour types (IHDR byte 25); 2 = RGB, 4 = grey + alpha, 6 = RGBA


def read_label_map(path: str | Path) -> np.ndarray:
    """Returns a PNG's class numbers as (H, W) uint8. Palette files give their indices, not their colours.

    Raises:
        ValueError: if the file is missing, empty, cut off, not a PNG, has colour or alpha channels, or holds a value
            above 255; the message names the path and how to convert it.
    """
    data = read_bytes(path)
    if not data.startswith(_PNG_START):
        raise ValueError(
            f"{path}: a label map must be a PNG file, this one starts with {data[:4].hex(' ')}; other formats may "
            "blur class numbers (JPEG does): export the labels again as single-channel PNG"
        )
    if len(data) < 33:  # signature and header chunk
        raise ValueError(f"{path}: this PNG is cut off ({len(data)} bytes); copy or export it again")
    depth, colour_type = data[24], data[25]
    if colour_type == _PALETTE:
        return _palette_indices(path, data)
    if colour_type != _GREY:
        kind = {2: "RGB", 4: "grey + alpha", 6: "RGBA"}.get(colour_type, f"colour type {colour_type}")
        raise ValueError(
            f"{path}: a label map needs one channel with the class number of each pixel, this PNG is {kind}; "
            "map its colours to class numbers and save it as 8-bit grey PNG"
        )
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError(f"{path}: this PNG is damaged or cut off ({len(data)} bytes); copy or export it again")
    if decoded.max() > 255:
        raise ValueError(
            f"{path}: 16-bit label map with values up to {decoded.max()}, allowed are 0..255; map them to class numbers"
        )
    labels: np.ndarray = decoded.astype(np.uint8, copy=False)
    if (
        depth < 8
    ):  # OpenCV stretches 1, 2 and 4-bit greys to 0..255; undo it, or class 1 of 2 becomes 255 = not labelled
        labels = labels // np.uint8(255 // (2**depth - 1))
    return labels


def _palette_indices(path: str | Path, data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged PNG chunks
        raise ValueError(f"{path}: this PNG is damaged or cut off ({error}); copy or export it again") from error
