"""Label maps as polygons and back, without losing a pixel.

The challenge wants segmentation as polygons per class and rasterises them itself: on a map of zeros, one cv2.fillPoly
per class with all of its contours at once, so contours inside contours are holes (even-odd) and every contour line is
painted. Contours of one or two points are skipped: pixels and straight lines must be written with at least three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ppmtl.structures import Size

Polygons = dict[str, list[list[list[int]]]]  # class -> contours -> points -> [x, y], as in the submission file

_FEWEST_POINTS = 3  # the official rasteriser skips shorter contours


def encode(label_map: np.ndarray, num_classes: int) -> Polygons:
    """The polygons of every class, "0" to the last, [] for an absent one; ``decode`` gives the map back.

    The polygons of each class paint exactly the pixels of that class, so the result does not depend on the order.

    Args:
        label_map: (H, W) uint8 class indices; no ignored pixels, a prediction has an answer everywhere.
        num_classes: at most 255.

    Raises:
        ValueError: not a uint8 map, or a label lies beyond the classes.
    """
    if label_map.ndim != 2 or label_map.dtype != np.uint8:
        raise ValueError(f"encode needs a (H, W) uint8 label map, got {label_map.dtype} {label_map.shape}")
    present = np.bincount(label_map.ravel(), minlength=num_classes)
    if len(present) > num_classes:
        raise ValueError(
            f"labels must be 0..{num_classes - 1}, got {len(present) - 1}; a prediction has no ignored pixels"
        )
    polygons: Polygons = {str(index): [] for index in range(num_classes)}
    for index in np.flatnonzero(present).tolist():
        mask = (label_map == index).view(np.uint8)
        # Outlines and hole outlines in one flat list; both run through pixels of the class.
        for found in cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]:
            contour = found[:, 0].tolist()
            polygons[str(index)].append(contour + contour[-1:] * (_FEWEST_POINTS - len(contour)))
    return polygons


def decode(polygons: Mapping[str, Sequence[Sequence[Sequence[float]]]], size: Size) -> np.ndarray:
    """The (H, W) uint8 label map that the official scorer makes of one image's polygons.

    Args:
        polygons: {class: contours}, painted in the order of the mapping; what no class paints is class 0 (road).
        size: (height, width).
    """
    label_map = np.zeros(size, np.uint8)
    for key, contours in polygons.items():
        painted = [np.asarray(contour, np.int32) for contour in contours if len(contour) >= _FEWEST_POINTS]
        if painted:
            cv2.fillPoly(label_map, painted, int(key))
    return label_map
