"""Pictures to upload, and where the stand-in finds something in them."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (201, 303)  # odd, and not the canvas's shape
SMALL = (0.65, 0.25, 0.7, 0.3)  # the box inside a box, in shares of the picture


def written(path: Path, size: tuple[int, int] = SIZE, **options) -> Path:
    """Writes a soft gradient, so that every pixel differs a little from its neighbours."""
    pixels = np.full((*size, 3), 90, np.uint8)
    pixels[..., 0] = (np.arange(size[0]) * 200 // size[0])[:, None]
    pixels[..., 1] = np.arange(size[1]) * 200 // size[1]
    Image.fromarray(pixels).save(path, **options)
    return path


def middle(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2 * SIZE[1], (box[1] + box[3]) / 2 * SIZE[0]
