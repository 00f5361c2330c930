"""What the header of an image file says about its size as it is shown; no pixel is decoded."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image, TiffImagePlugin

from ppmtl.structures import Size

_TURNED = (5, 6, 7, 8)  # the orientations that exchange height and width


def shown_size(image: Image.Image) -> Size:
    """(height, width) of an opened image as OpenCV decodes it, that is after its EXIF turn."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # of which newer Pillows say the size after the turn
        width, height = (image.tag_v2[tag] for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
    return (width, height) if orientation(image) in _TURNED else (height, width)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none; without decoding the image, which ``getexif`` does with PNG."""
    exif = Image.Exif()
    try:
        if image.format == "PNG":
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):  # what Pillow raises on damaged EXIF
        return 1
