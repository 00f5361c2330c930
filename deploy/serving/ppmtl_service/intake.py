"""Which uploads are images that may be decoded. Looks at headers only, so a hostile file costs no memory."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from PIL import Image

from ppmtl.structures import Size
from ppmtl_service.errors import ServiceError

FORMATS = {  # Pillow's name: what the file's first bytes look like
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM"),
}
# Every scan of a progressive JPEG goes over the entire image: a small file with thousands of them keeps a core busy for
# minutes. Ordinary ones have about ten.
_MAX_JPEG_SCANS, _SCAN = 100, b"\xff\xda"
Image.MAX_IMAGE_PIXELS = None  # ours is lower, and says in its own words what is allowed


@dataclass
class Upload:
    """One uploaded file: what its sender calls it, and its bytes."""

    name: str
    data: bytes


def image_size(upload: Upload, max_pixels: int, max_side: int) -> Size:
    """The (height, width) that the file's header says, before any EXIF turn.

    Raises:
        ServiceError: 415 if it is no image, 422 if its header is broken, 413 if it is too large.
    """
    name, data = upload.name, upload.data
    if not data:
        raise ServiceError(422, "empty_file", f"{name}: the file is empty (0 bytes); choose it again")
    kind = next((kind for kind, start in FORMATS.items() if start.match(data)), None)
    if kind is None:
        allowed = ", ".join(FORMATS)
        reason = f"the file's first bytes are not those of a {allowed} image, whatever its name says"
        raise ServiceError(415, "not_an_image", f"{name}: {reason}; convert it to one of these")
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:  # lazy: no pixel is decoded
            height, width = image.height, image.width
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError) as error:  # what Pillow raises on bad headers
        reason = f"the {kind} header is damaged or cut off; send the file again"
        raise ServiceError(422, "broken_image", f"{name}: {reason}") from error
    if kind == "JPEG" and data.count(_SCAN) > _MAX_JPEG_SCANS:
        reason = f"a JPEG of more than {_MAX_JPEG_SCANS} scans; save it again"
        raise ServiceError(422, "broken_image", f"{name}: {reason}")
    if max(height, width) > max_side or height * width > max_pixels:
        limits = f"allowed are {max_pixels} pixels in all and {max_side} per side"
        reason = f"{width} x {height} pixels; {limits}; make the image smaller"
        raise ServiceError(413, "image_too_large", f"{name}: {reason}")
    return height, width
