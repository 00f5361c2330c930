"""Large images in overlapping tiles, for what is too small once the full image is shrunk to the input size."""

from __future__ import annotations

import math

import numpy as np

from ppmtl.structures import Size

Window = tuple[int, int, int, int]  # (x1, y1, x2, y2), integer pixels of the image


def tile_windows(image: Size, tile: Size, overlap: tuple[float, float]) -> list[Window]:
    """Evenly spread tiles that cover the image, row by row; none if the image fits into one.

    Args:
        image: (height, width).
        tile: (height, width); a side longer than the image's is cut to it.
        overlap: (vertical, horizontal) share of a tile that it has in common with the next, at least; 0 <= overlap < 1.
    """
    rows = _starts(image[0], tile[0], overlap[0])
    columns = _starts(image[1], tile[1], overlap[1])
    if len(rows) == len(columns) == 1:
        return []
    height, width = min(tile[0], image[0]), min(tile[1], image[1])
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    if length <= tile:
        return [0]
    step = max(1.0, tile * (1 - overlap))
    count = math.ceil((length - tile) / step) + 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def blend_weights(size: Size) -> np.ndarray:
    """How much each pixel of a tile (height, width) counts where tiles overlap, (height, width) float32, above 0.

    It falls linearly from the middle to next to nothing at the border: there a tile knows least of what surrounds a pixel, and
    whatever it says fades out, so that no seam is left.
    """
    rows, columns = (np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) * (2 / n) for n in size)
    weights: np.ndarray = np.outer(rows, columns).astype(np.float32)
    return weights


def cut_by(window: Window, image: Size, boxes: np.ndarray, margin: float) -> np.ndarray:
    """Which boxes (N, 4) xyxy come within ``margin`` pixels of a border of their tile that is not the image's, (N,) bool.

    What lies there is visible in part only; the next tile, or the full image (height, width), has all of it.
    """
    x1, y1, x2, y2 = window
    height, width = image
    cut: np.ndarray = (
        ((boxes[:, 0] < x1 + margin) & (x1 > 0))
        | ((boxes[:, 1] < y1 + margin) & (y1 > 0))
        | ((boxes[:, 2] > x2 - margin) & (x2 < width))
        | ((boxes[:, 3] > y2 - margin) & (y2 < height))
    )
    return cut
