"""BDD100K: detection labels -> COCO boxes.

    DATA/labels/det_20/det_{train,val}.json  or  DATA/labels/bdd100k_labels_images_{train,val}.json (2018)
    DATA/images/100k/{train,val}/*.jpg

Both become the ten classes of the benchmark, with the names of 2020. "other person", "other vehicle" and "trailer" are regions
that evaluation ignores, groups ("crowd") too. Label maps (sem_seg/masks, drivable/masks) are PNG already: label_png reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppmtl.convert._output import Item, Objects, Output
from ppmtl.convert._reading import corners, first_there, image_size, take
from ppmtl.data.listing import read_json

# Source: bdd100k/configs/det.toml of the data set's toolkit
CLASSES = (
    "pedestrian",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
    "traffic light",
    "traffic sign",
)
_RENAMED = {"bike": "bicycle", "caravan": "car", "motor": "motorcycle", "person": "pedestrian", "van": "car"}
_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
_FILES = ("labels/det_20/det_{}.json", "det_20/det_{}.json", "labels/bdd100k_labels_images_{}.json")
_IMAGES = ("images/100k/{}", "100k/{}", "images/{}")


def convert(data: Path, out: Output) -> None:
    """Adds every frame of the label files; objects without a box (lanes, drivable areas) are left out and counted."""
    out.classes("det", CLASSES)
    for split in ("train", "val"):
        if not any((data / name.format(split)).is_file() for name in _FILES):
            continue
        file = first_there(data, *(name.format(split) for name in _FILES))
        folder = first_there(data, *(name.format(split) for name in _IMAGES))
        content = read_json(file)
        frames = content if isinstance(content, list) else take(content, "frames", list)
        for number, frame in enumerate(out.progress(frames, split)):
            with out.checking(f"{file}: frame {number}"):
                image = folder / take(frame, "name", str)
                if out.there(image):
                    labels = take(frame, "labels", list) if frame.get("labels") else []
                    items = [item for item in map(_item, labels) if item]
                    out.skip("labels without a box", len(labels) - len(items))
                    out.add("det", split, folder, image, Objects(image_size(image), items))


def _item(label: Any) -> Item | None:
    """The object of a label, None for one without a box.

    Corners are sub-pixel numbers, so width = x2 - x1, as in bdd100k/label/to_coco.py. (The toolkit's later scalabel adds 1.)
    """
    name = take(label, "category", str)
    if label.get("box2d") is None:
        return None
    name = _RENAMED.get(name, name)
    crowd = bool(label.get("attributes")) and bool(take(label, "attributes", dict).get("crowd"))
    box = corners(label["box2d"], ("x1", "y1", "x2", "y2"))
    return Item(_IGNORED.get(name, name), box, crowd=crowd, ignore=name in _IGNORED)
