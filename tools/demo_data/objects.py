"""The objects of a drawn street: what each is, and the pixels that are left of it behind everything nearer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from demo_data.classes import BICYCLE, BUS, CAR, MOTORCYCLE, PERSON, RIDER, TRAFFIC_LIGHT, TRAFFIC_SIGN, TRAIN, TRUCK
from demo_data.draw import SUPERSAMPLE, Canvas, Color
from ppmtl.ops.masks import Rle, packed

OBJECT_CLASSES: tuple[str, ...] = (
    "person", "bicycle", "motorcycle", "car", "truck", "bus", "tram", "traffic light", "traffic sign",
)  # fmt: skip
_CLASS_OF = {
    PERSON: 0, RIDER: 0, BICYCLE: 1, MOTORCYCLE: 2, CAR: 3, TRUCK: 4, BUS: 5, TRAIN: 6, TRAFFIC_LIGHT: 7, TRAFFIC_SIGN: 8,
}  # fmt: skip
_LEAST_AREA = 24.0  # visible pixels; of less nobody could say what it is
_LEAST_PART = 2.0  # pixels of a polygon or a hole
_TOLERANCE = 1.5  # by how much outlines may be simplified, in pixels a quarter as large as the picture's
_FINER = 2  # outlines run through the centres of border pixels: of pixels half as large they lose half as much


@dataclass(frozen=True)
class SeenObject:
    """What can be seen of one object.

    Attributes:
        index: its class in OBJECT_CLASSES.
        color: its paint or coat, before light and haze.
        box: x, y, width, height around the outlines.
        area: visible pixels.
        segmentation: COCO's polygons, or compressed run lengths where the object has holes, which polygons cannot say.
    """

    index: int
    color: Color
    box: list[float]
    area: float
    segmentation: list[list[float]] | dict[str, Any]


def seen_objects(canvas: Canvas) -> list[SeenObject]:
    """Returns the objects of a canvas of which enough is visible, far ones first."""
    found = []
    counts = np.bincount(canvas.owner.ravel(), minlength=len(canvas.objects) + 1)
    for number, (label, color) in enumerate(canvas.objects, 1):
        area = float(counts[number]) / SUPERSAMPLE**2
        if area < _LEAST_AREA:
            continue
        mask = canvas.owner == number
        polygons = _polygons(mask)
        corners = np.concatenate(polygons) if polygons else (np.argwhere(mask)[:, ::-1] + 0.5) / SUPERSAMPLE
        low, high = corners.min(axis=0), corners.max(axis=0)
        box = np.round([*low, *(high - low)], 2).tolist()
        shape = [ring.ravel().tolist() for ring in polygons] or _run_lengths(mask)
        found.append(SeenObject(_CLASS_OF[label], color, box, area, shape))
    return found


def _polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines (K, 2) in pixels of the picture; none when there is a hole, or no part is large enough."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corner, mask = np.array([columns[0], rows[0]]), mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fine = np.kron(mask.astype(np.uint8), np.ones((_FINER, _FINER), np.uint8))
    outlines, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    scale, polygons = _FINER * SUPERSAMPLE, []
    for outline, (*_, parent) in zip(outlines, hierarchy[0].tolist(), strict=True):
        if cv2.contourArea(outline) < _LEAST_PART * scale**2:
            continue
        if parent >= 0:
            return []
        simple = cv2.approxPolyDP(outline, _TOLERANCE, True)
        points = (simple if len(simple) > 2 else outline)[:, 0]  # a thin line would have two corners left
        polygons.append(np.round((points + 0.5) / scale + corner / SUPERSAMPLE, 2))
    return polygons


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    found = Rle.of(mask[::SUPERSAMPLE, ::SUPERSAMPLE])
    return {"size": list(found.size), "counts": packed(found.counts)}


def coco_instances(images: list[dict[str, Any]], objects: Sequence[Sequence[SeenObject]]) -> dict[str, Any]:
    """Returns a COCO dictionary of the objects of every image."""
    rows = [(image["id"], thing) for image, things in zip(images, objects, strict=True) for thing in things]
    annotations = [
        {"id": number, "image_id": image, "category_id": thing.index + 1, "bbox": thing.box, "area": thing.area,
         "iscrowd": 0, "segmentation": thing.segmentation}
        for number, (image, thing) in enumerate(rows, 1)
    ]  # fmt: skip
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(OBJECT_CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}
