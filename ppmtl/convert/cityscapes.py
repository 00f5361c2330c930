"""Cityscapes: fine annotations -> label maps with the 19 train ids, named like their images.

    DATA/leftImg8bit/{train,val}/<city>/*_leftImg8bit.png
    DATA/gtFine/{train,val}/<city>/*_gtFine_labelIds.png      or, where these are not there, *_gtFine_polygons.json

What has no train id becomes 255, not labelled. The test split has no labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ppmtl.convert._output import Output
from ppmtl.convert._reading import as_points, checked_size, first_there, number, take
from ppmtl.data.label_maps import read_label_map
from ppmtl.data.listing import read_json
from ppmtl.structures import IGNORE_LABEL

# Source: cityscapesscripts/helpers/labels.py. {id: class} in the order of the train ids
CLASSES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
           20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
           28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}  # fmt: skip
_OTHERS = {"unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "parking",
           "rail track", "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer"}  # fmt: skip
_NOT_DRAWN = "license plate"  # its id is negative: what lies below it stays
_LARGEST_ID = 33
_FEWEST = 2  # points that Pillow can draw


def convert(data: Path, out: Output) -> None:
    """Adds every image of train and val that has an annotation."""
    out.classes("seg", CLASSES.values())
    for split in ("train", "val"):
        images, labels = (first_there(data, f"{folder}/{split}") for folder in ("leftImg8bit", "gtFine"))
        found = {file.name.rsplit("_", 1)[0]: file for file in sorted(labels.rglob("*_gtFine_polygons.json"))}
        found |= {file.name.rsplit("_", 1)[0]: file for file in sorted(labels.rglob("*_gtFine_labelIds.png"))}
        for name, file in out.progress(found.items(), split):
            image = images / file.parent.relative_to(labels) / f"{name.removesuffix('_gtFine')}_leftImg8bit.png"
            with out.checking(file):
                if out.there(image):
                    label_map = _from_ids(file) if file.suffix == ".png" else _from_polygons(file, image)
                    out.add("seg", split, images, image, label_map)


def _from_ids(file: Path) -> np.ndarray:
    ids = read_label_map(file)
    if (largest := int(ids.max())) > _LARGEST_ID and largest != IGNORE_LABEL:  # 255: an id of -1 in eight bits
        raise ValueError(
            f"has id {largest}, Cityscapes ids are 0..{_LARGEST_ID}; is it a file of train ids or instances?"
        )
    table = np.full(256, IGNORE_LABEL, np.uint8)
    table[list(CLASSES)] = np.arange(len(CLASSES))
    return table[ids]


def _from_polygons(file: Path, image: Path) -> np.ndarray:
    """Draws the polygons over one another as the data set's own tool does, which is why Pillow draws them."""
    content = read_json(file)
    height, width = checked_size(image, (number(content, "imgHeight"), number(content, "imgWidth")))
    canvas = Image.new("L", (width, height), IGNORE_LABEL)
    pen = ImageDraw.Draw(canvas)
    train_ids = {name: index for index, name in enumerate(CLASSES.values())}
    for position, entry in enumerate(take(content, "objects", list)):
        name = take(entry, "label", str)
        if name not in train_ids and name not in _OTHERS:
            name = name.removesuffix("group")  # "cargroup": cars that could not be told apart
        if entry.get("deleted") or name == _NOT_DRAWN:
            continue
        if name not in train_ids and name not in _OTHERS:
            raise ValueError(f"objects[{position}]: label {entry['label']!r} is no Cityscapes label")
        corners = as_points(take(entry, "polygon", list), f"objects[{position}].polygon")
        if len(corners) < _FEWEST:
            raise ValueError(f"objects[{position}].polygon has {len(corners)} points, it needs {_FEWEST} or more")
        pen.polygon(corners, fill=train_ids.get(name, IGNORE_LABEL))
    return np.array(canvas)
