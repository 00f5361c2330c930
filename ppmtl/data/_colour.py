"""Colour changes as 4x4 matrices on (R, G, B, 1), so that any sequence of them is one pass over the pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's "L" and OpenCV's RGB2GRAY
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def brightness(factor: float) -> np.ndarray:
    """x -> factor * x."""
    return _matrix(np.eye(3) * factor)


def contrast(factor: float, mean_grey: float) -> np.ndarray:
    """The blend of the image with its mean grey; 0 = flat grey, 1 = unchanged."""
    return _matrix(np.eye(3) * factor, (1 - factor) * mean_grey)


def saturation(factor: float) -> np.ndarray:
    """The blend of each pixel with its grey; 0 = black and white, 1 = unchanged (Pillow's Color enhancer)."""
    return _matrix(np.eye(3) * factor + (1 - factor) * np.ones((3, 1)) * GREY)


def hue(degrees: float) -> np.ndarray:
    """A turn of the colour circle in YIQ; unlike a shift in HSV it is linear and keeps the grey value."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return _matrix(np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ)


def apply(matrix: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The recoloured image, same shape and dtype; uint8 is rounded and clipped once."""
    result: np.ndarray = cv2.transform(image, matrix[:3])
    return result


def _matrix(linear: np.ndarray, offset: float = 0.0) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = linear, offset
    return result
