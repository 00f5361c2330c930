"""Picture and label files -> arrays. An unreadable file is an error that names it; it is never ``None`` or grey pixels.

Files are read as bytes and decoded from memory, because ``cv2.imread`` cannot open non-ASCII paths on every platform
and says nothing about why it failed.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3  # PNG colour types (IHDR byte 25); 2 = RGB, 4 = grey + alpha, 6 = RGBA
# The next real marker inside entropy-coded JPEG data: ff00 is an escaped byte, ffd0-ffd7 are restart marks, ffff fills.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_image(path: str | Path) -> np.ndarray:
    """Returns the picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation asks.

    Grey pictures get three equal channels, palettes become colours, transparency is dropped (the stored colours stay),
    16-bit values keep their upper eight bits. Boxes and label maps must refer to the picture as shown, that is after
    the EXIF turn; the readers compare sizes and say so.

    Raises:
        ValueError: if the file is missing, empty, cut off or not a picture; the message names the path, the
            reason and the remedy.
    """
    data = _read_bytes(path)
    if data.startswith(_JPEG_START) and not _jpeg_is_complete(data):
        raise ValueError(f"{path}: this JPEG is cut off (its end marker is missing); copy or download the file again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # e.g. more pixels than OpenCV allows
        raise ValueError(f"{path}: OpenCV refuses this picture: {error.err}; convert it to JPEG or PNG") from error
    if image is None:
        raise ValueError(
            f"{path}: cannot be decoded as a picture ({len(data)} bytes, first bytes {data[:8].hex(' ')}); it is "
            "damaged, cut off or not a JPEG, PNG, WebP, BMP or TIFF file: replace it or remove it from the data set"
        )
    result: np.ndarray = image
    return result


def read_label_map(path: str | Path) -> np.ndarray:
    """Returns a PNG's class numbers as (H, W) uint8. Palette files give their indices, not their colours.

    Raises:
        ValueError: if the file is missing, empty, cut off, not a PNG, has colour or alpha channels, or holds a value
            above 255; the message names the path and how to convert it.
    """
    data = _read_bytes(path)
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


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if not data:
        raise ValueError(f"{path}: the file is empty (0 bytes); copy or download it again")
    return data


def _palette_indices(path: str | Path, data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged PNG chunks
        raise ValueError(f"{path}: this PNG is damaged or cut off ({error}); copy or export it again") from error


def _jpeg_is_complete(data: bytes) -> bool:
    """Returns whether the JPEG reaches its end marker. Bytes after it are allowed: cameras append previews.

    Searching for the marker's two bytes anywhere is not enough: an EXIF thumbnail is a small JPEG with an end marker
    of its own. So the segments are walked, which jumps over the thumbnail.
    """
    if data.endswith(b"\xff\xd9"):
        return True
    position = 2
    while (marker := _NEXT_MARKER.search(data, position)) is not None:
        code = data[marker.start() + 1]
        if code == 0xD9:
            return True
        # Every other marker that can appear here starts a segment with a length; a scan's coded data follows it and
        # the next search passes over that.
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
