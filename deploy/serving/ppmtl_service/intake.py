"""Which uploads are pictures that may be decoded. Looks at headers only, so a hostile file costs no memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ppmtl.data.images import decode_image
from ppmtl_service.errors import ServiceError
from ppmtl_service.options import Options

FORMATS: dict[str, Callable[[bytes], bool]] = {  # Pillow's name -> what its first bytes look like
    "JPEG": lambda data: data.startswith(b"\xff\xd8\xff"),
    "PNG": lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"),
    "WEBP": lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP",
    "BMP": lambda data: data.startswith(b"BM"),
}
# Every scan of a progressive JPEG goes over the whole picture: a small file with thousands of them keeps a core busy for
# minutes. Encoders write about ten. The two bytes cannot occur inside coded data, where ff is followed by 00.
_MAX_JPEG_SCANS, _SCAN = 100, b"\xff\xda"

Image.MAX_IMAGE_PIXELS = None  # ours is lower, and says in its own words what is allowed


@dataclass
class Upload:
    """One uploaded file: what its sender calls it, and its bytes."""

    name: str
    data: bytes


def picture_size(upload: Upload, options: Options, *, tta: bool = False) -> tuple[int, int]:
    """Returns (height, width) as the file's header says, before any EXIF turn.

    Args:
        upload: the file.
        options: the limits.
        tta: whether several views are wanted, which allows fewer pixels.

    Raises:
        ServiceError: 415 if it is no picture, 422 if its header is broken, 413 if it is too large.
    """
    if not upload.data:
        raise ServiceError(422, "empty_file", f"{upload.name}: the file is empty (0 bytes); choose it again")
    kind = next((name for name, fits in FORMATS.items() if fits(upload.data)), None)
    if kind is None:
        raise ServiceError(
            415,
            "not_an_image",
            f"{upload.name}: the file's first bytes are not those of a {', '.join(FORMATS)} picture, whatever its name "
            "says; convert it to one of these",
        )
    height, width = _header(upload, kind)
    pixels = options.max_pixels_tta if tta else options.max_pixels
    if max(height, width) > options.max_side or height * width > pixels:
        raise ServiceError(
            413,
            "image_too_large",
            f"{upload.name}: {width} x {height} pixels; allowed are {pixels} pixels in all"
            f"{' with tta' if tta else ''} and {options.max_side} per side; make the picture smaller",
        )
    if kind == "JPEG" and upload.data.count(_SCAN) > _MAX_JPEG_SCANS:
        raise ServiceError(
            422, "broken_image", f"{upload.name}: a JPEG of more than {_MAX_JPEG_SCANS} scans; save it again"
        )
    return height, width


def decode(upload: Upload) -> np.ndarray:
    """Returns the picture as (H, W, 3) uint8 RGB, read as everywhere in the project.

    Raises:
        ServiceError: 422 if it cannot be decoded.
    """
    try:
        return decode_image(upload.data, upload.name)
    except ValueError as error:
        raise ServiceError(422, "broken_image", str(error)) from error


def _header(upload: Upload, kind: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(upload.data), formats=[kind]) as picture:  # lazy: no pixel is decoded
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError) as error:  # what Pillow raises on bad headers
        raise ServiceError(
            422, "broken_image", f"{upload.name}: the {kind} header is damaged or cut off; send the file again"
        ) from error
