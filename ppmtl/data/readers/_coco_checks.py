"""What can be wrong with a COCO file beside missing and dangling entries: names, boxes and polygons that look odd."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.findings import Finding
from ppmtl.ops.masks import Mask, Rle
from ppmtl.structures import ClassList, Size

# Annotation tools round: a box or polygon may end this far outside its image without being remarked on
_SLACK = 1.0  # px
MIN_SIDE = 1.0  # px; boxes with a shorter side are dropped


def class_findings(path: Path, content: Mapping[str, Any], classes: ClassList) -> Iterator[Finding]:
    """Errors where the file and the class list call one id by two names; then every box would get the wrong class.

    Upper and lower case, blanks, ``-`` and ``_`` do not count. A list of which only the length is known ("0", "1", ...)
    agrees with everything.
    """
    if classes.names == tuple(str(index) for index in range(len(classes))):
        return
    name_of = dict(zip(classes.ids, classes.names, strict=True))
    for place, category in enumerate(_categories(content)):
        class_id, name = category.get("id"), category.get("name")
        ours = name_of.get(class_id) if type(class_id) is int else None
        if ours is not None and isinstance(name, str) and _plain(name) != _plain(ours):
            yield Finding(
                f"{path}: categories[{place}]",
                f"id {class_id} is {name!r} here, but {ours!r} in the class list; give tasks.<task>.classes this file's names "
                f"and ids, or names: this file",
                kind="class_names",
            )


def remarks(path: Path, content: Mapping[str, Any], sizes: Mapping[int, tuple[str, Size]]) -> Iterator[Finding]:
    """Warnings and notes about the categories and the annotations that belong to an image.

    Args:
        path: of the file.
        content: the file, its entries checked one by one already.
        sizes: {image id: (file name, (height, width))}.
    """
    categories = [category["id"] for category in _categories(content) if type(category.get("id")) is int]
    if not categories:
        yield Finding(str(path), "has no 'categories', so names cannot be compared", "note", "no_categories")
    elif sorted(categories) != list(range(min(categories), min(categories) + len(categories))):
        text = f"category ids have gaps ({len(categories)} from {min(categories)} to {max(categories)}); they are translated"
        yield Finding(str(path), text, "note", "category_gaps")
    seen: dict[tuple[Any, ...], int] = {}
    ids = Counter(a["id"] for a in content["annotations"] if isinstance(a, dict) and type(a.get("id")) is int)
    for place, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict) or annotation.get("image_id") not in sizes:
            continue
        name, size = sizes[annotation["image_id"]]
        found = [*_box_remarks(annotation["bbox"], size), *_polygon_remarks(annotation.get("segmentation"), size)]
        key = (annotation["image_id"], *annotation["bbox"])
        if key in seen:
            same = annotation["category_id"] == seen[key]
            found.append(("duplicate_box", "the same box is there already" + ("" if same else ", with another class")))
        seen[key] = annotation["category_id"]
        if ids.get(annotation.get("id"), 0) > 1:
            found.append(
                ("annotation_id_twice", f"annotation id {annotation['id']} is used {ids[annotation['id']]} times")
            )
        for kind, problem in found:
            yield Finding(f"{path}: annotations[{place}] ({name})", problem, "warning", kind)
        if annotation.get("iscrowd") or annotation.get("ignore"):
            text = "a crowd or ignored region: no training target, left out of the measure"
            yield Finding(f"{path}: annotations[{place}] ({name})", text, "note", "crowd")


def mask_remark(mask: Mask, bbox: Sequence[float]) -> str:
    """What is odd about where the mask of an object lies, or an empty text."""
    if isinstance(mask, Rle):
        hull = mask.hull()
    else:
        points = np.concatenate(mask)
        hull = np.concatenate([points.min(axis=0), points.max(axis=0)])
    if hull is None:
        return ""
    x1, y1, x2, y2 = hull.tolist()
    x, y, w, h = bbox
    if x1 < x - _SLACK or y1 < y - _SLACK or x2 > x + w + _SLACK or y2 > y + h + _SLACK:
        return f"its mask covers x {x1:g} to {x2:g}, y {y1:g} to {y2:g} and so more than its bbox {list(bbox)}"
    return ""


def _categories(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = content.get("categories")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in " -_")


def _box_remarks(bbox: Sequence[float], size: Size) -> Iterator[tuple[str, str]]:
    (height, width), (x, y, w, h) = size, bbox
    inside = [min(x + w, width) - max(x, 0), min(y + h, height) - max(y, 0)]
    limit = f"the image is {width} x {height}"
    if w <= 0 or h <= 0:
        yield "degenerate_box", f"bbox {list(bbox)} has no area; it is dropped"
    elif min(inside) <= 0:
        yield "box_outside", f"bbox {list(bbox)} lies outside, {limit}; it is dropped"
    elif min(inside) < MIN_SIDE:
        yield "degenerate_box", f"bbox {list(bbox)} has a visible side below {MIN_SIDE:g} px, {limit}; it is dropped"
    elif min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK:
        yield "box_beyond_image", f"bbox {list(bbox)} reaches beyond, {limit}; it is clipped. Is it x1 y1 x2 y2?"


def _polygon_remarks(segmentation: Any, size: Size) -> Iterator[tuple[str, str]]:
    for polygon in segmentation if isinstance(segmentation, list) else ():
        numbers = polygon if isinstance(polygon, list) else []
        if (
            len(numbers) < 6
            or len(numbers) % 2
            or not all(type(v) in (int, float) and math.isfinite(v) for v in numbers)
        ):
            yield "bad_polygon", f"a polygon is at least three finite x, y pairs, got {str(polygon)[:60]}"
        elif min(numbers) < -_SLACK or max(numbers[::2]) > size[1] + _SLACK or max(numbers[1::2]) > size[0] + _SLACK:
            yield "polygon_outside", f"a polygon reaches beyond the image of {size[1]} x {size[0]}"
