"""LabelMe: one json per image -> COCO instances, or with --label_maps label maps.

    DATA/**/a.json beside DATA/**/a.jpg (or where its imagePath leads)      splits: DATA/train, DATA/val, DATA/test, else one

Polygons and rectangles are taken; shapes with the same label and group_id are one object. Circles, lines, points and AI masks
are left out and counted. In label maps later shapes lie over earlier ones; what none covers is 255 (not labelled) or the
--background, and shapes called "__ignore__" are 255. Instances leave these out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ppmtl.convert._output import Item, Objects, Output
from ppmtl.convert._reading import as_points, checked_size, hull, image_named, number, take
from ppmtl.data.listing import read_json
from ppmtl.ops.masks import draw_mask
from ppmtl.structures import IGNORE_LABEL

_SPLITS = ("train", "val", "test")
_FEWEST = {"polygon": 3, "rectangle": 2}  # points
_UNLABELLED = "__ignore__"  # the name that LabelMe's own examples give to what is not to be learnt


def convert(
    data: Path,
    out: Output,
    *,
    label_maps: Annotated[bool, "write label maps instead of instances"] = False,
    background: Annotated[str, "with --label_maps: class 0, for all pixels that no shape covers"] = "",
) -> None:
    """Adds the image of every json that has shapes."""
    if background and not label_maps:
        raise ValueError("--background is for label maps: add --label_maps")
    splits = {name: data / name for name in _SPLITS if (data / name).is_dir()} or {"all": data}
    found = {split: _read(folder, split, out, grouped=not label_maps) for split, folder in splits.items()}
    names = out.keep or sorted(
        {item.name for images in found.values() for said in images.values() for item in said.items}
    )
    names = [*([background] if background else []), *(name for name in names if name not in (background, _UNLABELLED))]
    out.classes("seg" if label_maps else "ins", names)
    for split, images in found.items():
        folder = Path(os.path.commonpath([image.parent for image in images])) if images else data
        for image, objects in out.progress(images.items(), split):
            with out.checking(image):
                said = _drawn(objects, names, background, out) if label_maps else objects
                out.add("seg" if label_maps else "ins", split, folder, image, said)


def _read(folder: Path, split: str, out: Output, *, grouped: bool) -> dict[Path, Objects]:
    """{image: its objects} of the json files below a folder."""
    found: dict[Path, Objects] = {}
    for file in out.progress(sorted(folder.rglob("*.json")), split):
        with out.checking(file):
            content = read_json(file)
            if not isinstance(content, dict) or "shapes" not in content:
                out.skip("json files without 'shapes'")
                continue
            name = take(content, "imagePath", str).replace("\\", "/")  # as Windows writes it
            image = Path(os.path.normpath(image_named(file.parent, file.stem, name)))
            if not out.there(image):
                continue
            if image in found:
                raise ValueError(f"{image} has another json already; remove one")
            size = checked_size(image, (number(content, "imageHeight"), number(content, "imageWidth")))
            found[image] = Objects(size, _items(take(content, "shapes", list), grouped, out))
    return found


def _items(shapes: Sequence[Any], grouped: bool, out: Output) -> list[Item]:
    """One object per shape, or per group of shapes, in the order of the file."""
    groups: dict[tuple[str, Any], list[list[float]]] = {}
    for position, shape in enumerate(shapes):
        name = take(shape, "label", str)
        kind = str(shape.get("shape_type") or "polygon")
        points = as_points(take(shape, "points", list), f"shapes[{position}].points")
        if len(points) < _FEWEST.get(kind, len(points) + 1):
            out.skip(f"shapes of type {kind}" + (" with too few points" if kind in _FEWEST else ""))
            continue
        if kind == "rectangle":
            x1, y1, x2, y2 = hull([[value for point in points for value in point]])
            points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        group = shape.get("group_id") if grouped else None
        key = (name, position if group is None else f"group {group}")
        groups.setdefault(key, []).append([value for point in points for value in point])
    return [Item(name, hull(rings), tuple(rings)) for (name, _), rings in groups.items()]


def _drawn(objects: Objects, names: Sequence[str], background: str, out: Output) -> np.ndarray:
    """The (H, W) uint8 label map of the shapes whose class is among the names."""
    values = {**{name: index for index, name in enumerate(names)}, _UNLABELLED: IGNORE_LABEL}
    label_map = np.full(objects.size, 0 if background else IGNORE_LABEL, np.uint8)
    for item in objects.items:
        if item.name not in values:
            out.skip("shapes of other classes")
            continue
        rings = tuple(np.array(ring).reshape(-1, 2) for ring in item.polygons)
        label_map[draw_mask(rings, objects.size) > 0] = values[item.name]
    return label_map
