"""2x3 float64 affines between images, and the one function that moves pixels with them.

Coordinates are continuous (``structures.py``: pixel i covers [i, i + 1), its centre is i + 0.5), so a scale is a plain
multiplication, a flip is x -> W - x, and nothing needs a "minus one". OpenCV's ``warpAffine`` counts pixel centres as
integers instead; the half-pixel shift between the two lives in ``_warp_affine`` and nowhere else.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np

from ppmtl.structures import Size

Interpolation = Literal["nearest", "linear", "cubic"]

# NEAREST_EXACT picks floor((i + 0.5) / scale), the half-pixel convention; plain INTER_NEAREST of cv2.resize is shifted.
_RESIZE = {"nearest": cv2.INTER_NEAREST_EXACT, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_WARP = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_SNAP = 1e-6  # px; a rectangle this close to whole pixels is meant to be whole: composing rounds at about 1e-12


def identity() -> np.ndarray:
    """Moves nothing."""
    return scaling(1.0, 1.0)


def scaling(sx: float, sy: float) -> np.ndarray:
    """(x, y) -> (sx * x, sy * y)."""
    return np.array([[sx, 0.0, 0.0], [0.0, sy, 0.0]], np.float64)


def translation(dx: float, dy: float) -> np.ndarray:
    """(x, y) -> (x + dx, y + dy), in pixels."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]], np.float64)


def stretch(size: Size, to: Size) -> np.ndarray:
    """Stretches an image of ``size`` (height, width) to ``to``, the aspect not kept."""
    return scaling(to[1] / size[1], to[0] / size[0])


def letterbox(size: Size, to: Size) -> np.ndarray:
    """Scales an image of ``size`` (height, width) into ``to``, aspect kept up to whole pixels, centred."""
    factor = min(to[0] / size[0], to[1] / size[1])
    height, width = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    return compose(stretch(size, (height, width)), translation((to[1] - width) // 2, (to[0] - height) // 2))


def horizontal_flip(width: float) -> np.ndarray:
    """x -> width - x: mirrors an image ``width`` pixels wide."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]], np.float64)


def rotation(degrees: float, center_xy: tuple[float, float]) -> np.ndarray:
    """Turns about ``center_xy`` (pixels); positive degrees turn the image anticlockwise as seen."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = center_xy
    return np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])


def compose(first: np.ndarray, *then: np.ndarray) -> np.ndarray:
    """One affine that applies ``first``, then each of ``then`` in order."""
    result = np.asarray(first, np.float64)
    for a in then:
        result = np.concatenate([a[:, :2] @ result[:, :2], a[:, :2] @ result[:, 2:] + a[:, 2:]], axis=1)
    return result


def invert(a: np.ndarray) -> np.ndarray:
    """The affine that undoes ``a``; ValueError if ``a`` flattens the plane (zero or non-finite determinant)."""
    determinant = a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    if determinant == 0 or not np.isfinite(a).all():
        raise ValueError(
            f"an affine with determinant {determinant} cannot be undone: {a.tolist()}; use a scale other than 0"
        )
    linear = np.array([[a[1, 1], -a[0, 1]], [-a[1, 0], a[0, 0]]], np.float64) / determinant
    return np.concatenate([linear, -linear @ a[:, 2:]], axis=1)


def apply_to_boxes(a: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The axis-aligned hulls, (N, 4) float32 xyxy pixels, of the moved ``boxes`` (N, 4); N may be 0."""
    corners_x = boxes[:, [0, 2, 2, 0]].astype(np.float64)
    corners_y = boxes[:, [1, 1, 3, 3]].astype(np.float64)
    x = a[0, 0] * corners_x + a[0, 1] * corners_y + a[0, 2]
    y = a[1, 0] * corners_x + a[1, 1] * corners_y + a[1, 2]
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1).astype(np.float32)


def warp(
    image: np.ndarray, to_output: np.ndarray, output_size: Size, interpolation: Interpolation, fill: float
) -> np.ndarray:
    """The image moved by ``to_output``, seen through a window of ``output_size``.

    Whole-pixel crops, pads and flips are copied exactly. A window that is a whole-pixel rectangle of the image is
    ``cv2.resize`` of that rectangle (so plain scaling is exactly ``cv2.resize``). Everything else is one
    ``cv2.warpAffine``; without rotation the image's edge is repeated up to the last half pixel, as resizing does,
    instead of being mixed with ``fill``.

    Args:
        image: (H, W) or (H, W, up to 4) uint8 or float32. Returned as it is (not a copy) when nothing moves.
        to_output: (2, 3) float64, continuous input pixel coordinates -> output ones.
        output_size: (height, width) of the result.
        interpolation: "nearest" for label maps: it never makes a value that was not there.
        fill: value outside the image.

    Raises:
        ValueError: if ``output_size`` has no pixels or ``to_output`` cannot be inverted.
    """
    if min(output_size) < 1:
        raise ValueError(f"output size must be at least 1x1, got {output_size}; enlarge the crop or the scale")
    if to_output[0, 1] != 0 or to_output[1, 0] != 0:
        return _warp_affine(image, to_output, output_size, interpolation, fill, cv2.BORDER_CONSTANT)
    mirror_x, mirror_y = to_output[0, 0] < 0, to_output[1, 1] < 0
    if not (mirror_x or mirror_y):
        return _warp_upright(image, to_output, output_size, interpolation, fill)
    height, width = output_size
    undo = scaling(-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0)
    undo[:, 2] = (width if mirror_x else 0, height if mirror_y else 0)
    upright = _warp_upright(image, compose(to_output, undo), output_size, interpolation, fill)
    mirrored: np.ndarray = cv2.flip(upright, -1 if mirror_x and mirror_y else int(mirror_x))
    return mirrored


def _warp_upright(
    image: np.ndarray, to_output: np.ndarray, output_size: Size, interpolation: Interpolation, fill: float
) -> np.ndarray:
    """``warp`` for positive scales and no rotation."""
    (in_height, in_width), (height, width) = image.shape[:2], output_size
    corners = (invert(to_output) @ [[0, width], [0, height], [1, 1]]).T.ravel()  # of the window, in the input
    x1, y1, x2, y2 = np.rint(corners).astype(int).tolist()
    if np.abs(corners - (x1, y1, x2, y2)).max() <= _SNAP and x2 > x1 and y2 > y1:  # cuts through no pixel
        if (y2 - y1, x2 - x1) == (height, width):
            return _crop_and_pad(image, x1, y1, output_size, fill)
        if x1 >= 0 and y1 >= 0 and x2 <= in_width and y2 <= in_height:
            crop = image[y1:y2, x1:x2]
            resized: np.ndarray = cv2.resize(crop, (width, height), interpolation=_RESIZE[interpolation])
            return resized
    output = _warp_affine(image, to_output, output_size, interpolation, fill, cv2.BORDER_REPLICATE)
    # Output pixels whose centre lies outside the image; the rest keeps the repeated edge.
    edges = to_output @ [[0, in_width], [0, in_height], [1, 1]]
    (left, right), (top, bottom) = np.maximum(0, np.ceil(edges - 0.5 - _SNAP)).astype(int).tolist()
    output[:top], output[bottom:], output[:, :left], output[:, right:] = fill, fill, fill, fill
    return output


def _crop_and_pad(image: np.ndarray, x1: int, y1: int, output_size: Size, fill: float) -> np.ndarray:
    """The window of ``output_size`` whose top left is (x1, y1), copied pixel by pixel."""
    (in_height, in_width), (height, width) = image.shape[:2], output_size
    if (x1, y1) == (0, 0) and (in_height, in_width) == (height, width):
        return image
    top, bottom = (min(max(edge, 0), in_height) for edge in (y1, y1 + height))
    left, right = (min(max(edge, 0), in_width) for edge in (x1, x1 + width))
    inside = image[top:bottom, left:right]
    if inside.shape[:2] == output_size:
        return np.ascontiguousarray(inside)
    output = np.full((height, width, *image.shape[2:]), fill, image.dtype)
    output[top - y1 : bottom - y1, left - x1 : right - x1] = inside
    return output


def _warp_affine(
    image: np.ndarray, to_output: np.ndarray, output_size: Size, interpolation: Interpolation, fill: float, border: int
) -> np.ndarray:
    moved: np.ndarray = cv2.warpAffine(
        image,
        compose(
            translation(0.5, 0.5), invert(to_output), translation(-0.5, -0.5)
        ),  # OpenCV: pixel centres are integers
        (output_size[1], output_size[0]),
        flags=_WARP[interpolation] | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=[float(fill)] * 4,
    )
    return moved
