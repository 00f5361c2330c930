"""What transforms draw and check alike. Corners are (top, left) in whole pixels."""

from __future__ import annotations

import math

import numpy as np

from ppmtl.structures import Size


def whole_pixels(side: float) -> int:
    """A side in whole pixels, at least one."""
    return max(1, round(side))


def draw_ratio(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between the bounds, drawn evenly on a log scale."""
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))


def draw_corner(whole: Size, window: Size, rng: np.random.Generator) -> tuple[int, int]:
    """(top, left) of a window anywhere in the image; 0 along a side in which the window is the longer one."""
    top, left = (int(rng.integers(max(have - want, 0) + 1)) for have, want in zip(whole, window, strict=True))
    return top, left


def corner_around(box: np.ndarray, whole: Size, window: Size, rng: np.random.Generator) -> tuple[int, int]:
    """(top, left) of a window that shows all of ``box`` if it can, else the box's centre."""
    corner = []
    for have, want, low, high in zip(whole, window, (box[1], box[0]), (box[3], box[2]), strict=True):
        first, last = math.ceil(high) - want, math.floor(low)
        if first > last:  # the box is longer than the window
            first = last = round((low + high - want) / 2)
        limit = max(have - want, 0)
        first, last = min(max(first, 0), limit), min(max(last, 0), limit)
        corner.append(int(rng.integers(first, last + 1)))
    return corner[0], corner[1]


def require_order(setting: str, low: float, high: float) -> None:
    """Raises ValueError if the two ends of a range are the wrong way round."""
    if low > high:
        raise ValueError(f"{setting}: got {low} and {high}; the first must not be the larger one")
