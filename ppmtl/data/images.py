"""Image files -> arrays. An unreadable file is an error that names it; it is never ``None`` or grey pixels.

Files are read as bytes and decoded from memory, because ``cv2.imread`` cannot open non-ASCII paths on every platform
and says nothing about why it failed. OpenCV only: deployment uses it too.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from ppmtl.data.findings import FileError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_JPEG_START = b"\xff\xd8"
# The next real marker inside entropy-coded JPEG data: ff00 is an escaped byte, ffd0-ffd7 are restart marks, ffff fills.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_image(path: str | Path) -> np.ndarray:
    """The image of a file as ``decode_image`` gives it; ValueError also if the file is missing or empty."""
    return decode_image(read_bytes(path), path)


def decode_image(data: bytes, path: str | Path) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB, turned as its EXIF orientation asks.

    Grey images get three equal channels, palettes become colours, transparency is dropped (the stored colours stay),
    16-bit values keep their upper eight bits. Boxes and label maps must refer to the image as shown, that is after
    the EXIF turn; the readers compare sizes and say so.

    Args:
        data: the whole file.
        path: what it is called in messages.

    Raises:
        ValueError: if it is cut off or not an image; the message names the path, the reason and the remedy.
    """
    require_complete(data, path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # e.g. more pixels than OpenCV allows
        problem = f"OpenCV refuses this image: {error.err}; convert it to JPEG or PNG"
        raise FileError(path, problem, "broken_image") from error
    if image is None:
        raise FileError(
            path,
            f"cannot be decoded as an image ({len(data)} bytes, first bytes {data[:8].hex(' ')}); it is "
            "damaged, cut off or not a JPEG, PNG, WebP, BMP or TIFF file: replace it or remove it from the data set",
            "broken_image",
        )
    result: np.ndarray = image
    return result


def require_complete(data: bytes, path: str | Path) -> None:
    """Raises FileError if this is a JPEG without its end; cheap, nothing is decoded."""
    if data.startswith(_JPEG_START) and not _jpeg_is_complete(data):
        problem = "this JPEG is cut off (its end marker is missing); copy or download the file again"
        raise FileError(path, problem, "truncated_image")


def read_bytes(path: str | Path) -> bytes:
    """The file's bytes; ValueError naming the path if it cannot be read or is empty."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check the path and its permissions"
        if Path(path).is_dir():
            problem = "is a folder, not a file; folders have a flag or key of their own"
        raise FileError(path, problem, "unreadable_file") from error
    if not data:
        raise FileError(path, "the file is empty (0 bytes); copy or download it again", "empty_file")
    return data


def find_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; ValueError if it does not exist or holds none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of images")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{folder}: holds no image ({', '.join(SUFFIXES)})")
    return found


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether the JPEG reaches its end marker. Bytes after it are allowed: cameras append previews.

    Searching for the marker's two bytes anywhere is not enough: an EXIF thumbnail is a small JPEG with an end marker
    of its own. So the segments are walked, which jumps over the thumbnail.
    """
    if data.endswith(b"\xff\xd9"):
        return True
    position = 2
    while (marker := _NEXT_MARKER.search(data, position)) is not None:
        if marker[0][1] == 0xD9:
            return True
        # Every other marker that can appear here starts a segment with a length; a scan's coded data follows it and
        # the next search passes over that.
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
