"""Pascal VOC: xml files -> COCO boxes, and where there are any, segmentation PNGs -> label maps.

    DATA/Annotations/*.xml               DATA/JPEGImages/*.jpg (or images/)
    DATA/ImageSets/Main/{train,val,trainval,test}.txt          names without ending; without lists all files are one split
    DATA/SegmentationClass/*.png         DATA/ImageSets/Segmentation/*.txt

Classes of label maps are background and the 20 of VOC, or those of --classes. VOC counts pixels from 1, and a box has its last
pixel too. Later tools (LabelImg, CVAT) write the same xml with edges counted from 0: say --zero_based for those. "difficult"
objects become ones that evaluation ignores, as VOC's does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

from ppmtl.convert._output import Item, Objects, Output
from ppmtl.convert._reading import as_number, checked_size, first_there, image_named
from ppmtl.data.images import read_bytes
from ppmtl.data.label_maps import read_label_map
from ppmtl.data.listing import read_text

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
           "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip
_SPLITS = ("train", "val", "trainval", "test")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def convert(
    data: Path, out: Output, *, zero_based: Annotated[bool, "corners are edges counted from 0"] = False
) -> None:
    """Adds every image of every list, with boxes and with label maps, whichever there are."""
    images = first_there(data, "JPEGImages", "images", ".")
    files = first_there(data, "Annotations", "annotations", ".")
    for split, names in _splits(data / "ImageSets/Main", files, ".xml").items():
        for name in out.progress(names, split):
            file = files / f"{name}.xml"
            with out.checking(file):
                content = _parse(file)
                image = image_named(images, name, content.findtext("filename", "").strip())
                if out.there(image):
                    items = [_item(node, zero_based) for node in content.findall("object")]
                    size = content.find("size")
                    said = [_number(size, side) for side in ("height", "width")] if size is not None else [0.0, 0.0]
                    out.add("det", split, images, image, Objects(checked_size(image, (said[0], said[1])), items))
    if (maps := data / "SegmentationClass").is_dir():
        out.classes("seg", ("background", *(out.keep or CLASSES)))
        for split, names in _splits(data / "ImageSets/Segmentation", maps, ".png").items():
            for name in out.progress(names, f"{split} label maps"):
                with out.checking(maps / f"{name}.png"):
                    if out.there(image := image_named(images, name)):
                        out.add("seg", split, images, image, read_label_map(maps / f"{name}.png"))


def _splits(lists: Path, files: Path, suffix: str) -> dict[str, list[str]]:
    """{split: names of its files without ending}."""
    found = {split: lists / f"{split}.txt" for split in _SPLITS if (lists / f"{split}.txt").is_file()}
    if not found:
        return {"all": sorted(path.stem for path in files.glob(f"*{suffix}"))}
    lines = {split: read_text(path).splitlines() for split, path in found.items()}
    return {split: [line.strip() for line in of_split if line.strip()] for split, of_split in lines.items()}


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_bytes(file))  # bytes: the xml says its encoding itself
    except ElementTree.ParseError as error:
        raise ValueError(f"is no xml ({error}); it may be cut off: export it again") from error


def _item(node: ElementTree.Element, zero_based: bool) -> Item:
    name = node.findtext("name", "").strip()
    if not name:
        raise ValueError("<object> without <name>")
    box = node.find("bndbox")
    if box is None:
        raise ValueError(f"<object> {name}: without <bndbox>")
    x1, y1, x2, y2 = (_number(box, key) for key in _CORNERS)
    if not zero_based:
        if min(x1, y1) < 1:
            raise ValueError(
                f"<object> {name}: corner {x1:g}, {y1:g}: VOC counts from 1; if yours counts from 0: --zero_based"
            )
        x1, y1 = x1 - 1, y1 - 1
    if x2 < x1 or y2 < y1:
        raise ValueError(f"<object> {name}: xmax, ymax {x2:g}, {y2:g} lie before xmin, ymin")
    return Item(name, (x1, y1, x2, y2), ignore=node.findtext("difficult", "0").strip() == "1")


def _number(node: ElementTree.Element, tag: str) -> float:
    return as_number(node.findtext(tag), f"<{node.tag}> <{tag}>")
