"""Large pictures in overlapping tiles, for objects that are too small once the whole picture is shrunk to the input."""

from __future__ import annotations

import math

import numpy as np

from ppmtl.structures import Size

Window = tuple[int, int, int, int]  # (x1, y1, x2, y2), whole pixels of the picture


def tile_windows(picture: Size, tile: Size, overlap: tuple[float, float]) -> list[Window]:
    """Returns evenly spread tiles that cover the picture, row by row; none if the picture fits into one.

    Args:
        picture: (height, width).
        tile: (height, width); a side longer than the picture's is cut to it.
        overlap: (vertical, horizontal) share of a tile that it has in common with the next, at least; 0 <= overlap < 1.
    """
    rows = _starts(picture[0], tile[0], overlap[0])
    columns = _starts(picture[1], tile[1], overlap[1])
    if len(rows) == len(columns) == 1:
        return []
    height, width = min(tile[0], picture[0]), min(tile[1], picture[1])
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    if length <= tile:
        return [0]
    step = max(1.0, tile * (1 - overlap))
    count = math.ceil((length - tile) / step) + 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def cut_by(window: Window, picture: Size, boxes: np.ndarray, margin: float) -> np.ndarray:
    """Returns (N,) bool: which boxes reach a border of the tile that is not the picture's border.

    What lies there is seen in part only; the next tile, or the whole picture, has all of it.

    Args:
        window: the tile in which the boxes were found.
        picture: (height, width).
        boxes: (N, 4) xyxy pixels of the picture.
        margin: as close as this, in pixels, counts as reaching it.
    """
    x1, y1, x2, y2 = window
    height, width = picture
    cut: np.ndarray = (
        ((boxes[:, 0] < x1 + margin) & (x1 > 0))
        | ((boxes[:, 1] < y1 + margin) & (y1 > 0))
        | ((boxes[:, 2] > x2 - margin) & (x2 < width))
        | ((boxes[:, 3] > y2 - margin) & (y2 < height))
    )
    return cut
