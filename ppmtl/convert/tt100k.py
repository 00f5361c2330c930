"""Tsinghua-Tencent 100K: its own annotations -> COCO boxes.

    DATA/annotations.json (2016) or annotations_all.json (2021)      DATA/{train,test,other}/*.jpg

The splits are the folders that its paths name. --frequent keeps the 45 classes that have 100 or more instances, which published
results (and the challenge) use; signs of the others become background, as they are there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ppmtl.convert._output import Item, Objects, Output
from ppmtl.convert._reading import corners, first_there, image_size, take
from ppmtl.data.listing import read_json

# Source: type45 of the data set's own scripts (anno_func.py)
FREQUENT = ("i2", "i4", "i5", "il100", "il60", "il80", "io", "ip", "p10", "p11", "p12", "p19", "p23", "p26", "p27", "p3", "p5",
            "p6", "pg", "ph4", "ph4.5", "ph5", "pl100", "pl120", "pl20", "pl30", "pl40", "pl5", "pl50", "pl60", "pl70", "pl80",
            "pm20", "pm30", "pm55", "pn", "pne", "po", "pr40", "w13", "w32", "w55", "w57", "w59", "wo")  # fmt: skip


def convert(
    data: Path, out: Output, *, frequent: Annotated[bool, "the 45 classes with 100 or more instances"] = False
) -> None:
    """Adds every image of the annotation file."""
    file = first_there(data, "annotations.json", "annotations_all.json")
    if frequent:
        out.classes("det", FREQUENT)
    for number, entry in out.progress(take(read_json(file), "imgs", dict).items(), "signs"):
        with out.checking(f"{file}: imgs[{number!r}]"):
            image = data / take(entry, "path", str)
            if not out.there(image):
                continue
            items = []
            for sign in take(entry, "objects", list):
                box = corners(take(sign, "bbox", dict), ("xmin", "ymin", "xmax", "ymax"))
                items.append(Item(take(sign, "category", str), box))
            split, *inside = image.relative_to(data).parts
            if not inside:
                raise ValueError(f"'path' must be folder/name, the folder is the split; got {split!r}")
            out.add("det", split, data / split, image, Objects(image_size(image), items))
