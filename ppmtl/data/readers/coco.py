"""Detection: boxes from a COCO annotation file (TT100K in the challenge's form, or any other)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from ppmtl.data.findings import shorten
from ppmtl.data.images import read_image
from ppmtl.data.listing import read_json, require_files, under
from ppmtl.structures import ClassList, Sample, Size

log = logging.getLogger(__name__)


@dataclass
class _Picture:
    """One entry of ``images`` with its annotations; boxes are xyxy pixels, labels class indices."""

    image_id: int
    file_name: str
    size: Size
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignored_boxes: list[list[float]] = field(default_factory=list)
    ignored_labels: list[int] = field(default_factory=list)


class COCO:
    """Pictures of a folder with the boxes that a COCO file gives them.

    Pictures without objects stay in: they teach what is not an object. Boxes are clipped to the picture; those left
    with a side below ``min_box_side`` are dropped and counted in one warning. Crowd and ``ignore`` boxes are kept apart
    in ``Sample.ignored_boxes``. Category ids may have gaps; they are translated by ``classes``.

    Args:
        root: where relative paths start.
        classes: the classes; ``ids`` are the file's category ids.
        images: folder that the ``file_name`` entries start from.
        annotations: the COCO file.
        min_box_side: in pixels.

    Raises:
        ValueError: if the file's structure, ids or values are wrong (everything found in one message), or pictures
            are missing.
    """

    def __init__(
        self,
        root: str | Path,
        classes: ClassList,
        *,
        images: str,
        annotations: str,
        min_box_side: Annotated[float, Ge(0.0)] = 1.0,
    ) -> None:
        self.classes = classes
        self._json = under(root, annotations)
        content = read_json(self._json)
        complaints: list[str] = []
        pictures = _pictures(self._json, content, complaints)
        self._dropped = _attach_boxes(pictures, content, classes, min_box_side, complaints)
        if complaints:
            raise ValueError(
                f"{self._json}: {len(complaints)} wrong entries; correct them, or the class list (its ids: "
                f"{_spell(classes.ids)}):\n{shorten(complaints)}"
            )
        self._pictures = list(pictures.values())
        self._folder = under(root, images)
        require_files((self._folder / picture.file_name for picture in self._pictures), self._json)
        if self._dropped:
            log.warning(
                "%s: %d boxes dropped: outside their picture or a side below %g px",
                self._json,
                self._dropped,
                min_box_side,
            )

    @staticmethod
    def required_paths(root: str | Path, *, images: str, annotations: str, **_: object) -> list[Path]:
        """Returns the paths that must exist before the data set can be built."""
        return [under(root, images), under(root, annotations)]

    def __len__(self) -> int:
        return len(self._pictures)

    def path(self, index: int) -> str:
        """Returns the picture file of sample ``index``."""
        return str(self._folder / self._pictures[index].file_name)

    def __getitem__(self, index: int) -> Sample:
        """Returns the picture with ``boxes``, ``box_labels``, ``image_id`` and the ignored boxes.

        Raises:
            ValueError: if the file cannot be read, or its size is not the one in the annotation file.
        """
        picture, path = self._pictures[index], self.path(index)
        image = read_image(path)
        if image.shape[:2] != picture.size:
            turned = " (turned: the boxes refer to the picture without its EXIF orientation)"
            raise ValueError(
                f"{path}: the picture's (height, width) is {image.shape[:2]}, but {self._json} says {picture.size}"
                f"{turned if image.shape[:2] == picture.size[::-1] else ''}; boxes would be off: use the picture "
                "that was annotated, or scale the annotations"
            )
        return Sample(
            path=path,
            image=image,
            boxes=np.array(picture.boxes, np.float32).reshape(-1, 4),
            box_labels=np.array(picture.labels, np.int64),
            image_id=picture.image_id,
            ignored_boxes=np.array(picture.ignored_boxes, np.float32).reshape(-1, 4),
            ignored_labels=np.array(picture.ignored_labels, np.int64),
        )

    def describe(self) -> str:
        """Returns one line: pictures, how many of them without objects, boxes, classes, and what was left out."""
        empty = sum(not picture.boxes for picture in self._pictures)
        boxes = sum(len(picture.boxes) for picture in self._pictures)
        ignored = sum(len(picture.ignored_boxes) for picture in self._pictures)
        used = {label for picture in self._pictures for label in picture.labels}
        return (
            f"{self._json.name}: {len(self)} pictures ({empty} without objects), {boxes} boxes of {len(used)} out of "
            f"{len(self.classes)} classes; {ignored} crowd or ignored boxes, {self._dropped} dropped"
        )


def _pictures(json_path: Path, content: Any, complaints: list[str]) -> dict[int, _Picture]:
    """Returns {image id: picture without boxes} in file order; adds what is wrong to ``complaints``."""
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(f"{json_path}: is no COCO file: it needs the lists 'images' and 'annotations'")
    if not content["images"]:
        raise ValueError(f"{json_path}: its 'images' list is empty; list the pictures, also those without objects")
    pictures: dict[int, _Picture] = {}
    for position, entry in enumerate(content["images"]):
        where = f"images[{position}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
            complaints.append(f"{where}: no text 'file_name' in {entry!r}")
        elif not all(type(entry.get(key)) is int and entry[key] >= low for key, low in _WHOLE_NUMBERS.items()):
            complaints.append(
                f"{where} ({entry['file_name']}): 'id', 'height' and 'width' must be whole numbers, got {entry!r}"
            )
        elif entry["id"] in pictures:
            complaints.append(
                f"{where} ({entry['file_name']}): image id {entry['id']} is already {pictures[entry['id']].file_name}"
            )
        else:
            pictures[entry["id"]] = _Picture(entry["id"], entry["file_name"], (entry["height"], entry["width"]))
    names = Counter(picture.file_name for picture in pictures.values())
    complaints += [f"file name {name!r} is listed {n} times" for name, n in names.items() if n > 1]
    return pictures


_WHOLE_NUMBERS = {"id": 0, "height": 1, "width": 1}


def _attach_boxes(
    pictures: dict[int, _Picture], content: Any, classes: ClassList, min_side: float, complaints: list[str]
) -> int:
    """Adds every annotation to its picture; returns how many boxes were dropped as too small or outside."""
    index_of = classes.index_of()
    dropped = 0
    for position, entry in enumerate(content["annotations"]):
        problem = _annotation_problem(entry, pictures, index_of)
        if problem:
            complaints.append(f"annotations[{position}]: {problem}")
            continue
        picture = pictures[entry["image_id"]]
        (height, width), (x, y, w, h) = picture.size, entry["bbox"]
        box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
        if w <= 0 or h <= 0 or box[2] - box[0] < min_side or box[3] - box[1] < min_side:
            dropped += 1
        elif entry.get("iscrowd") or entry.get("ignore"):
            picture.ignored_boxes.append(box)
            picture.ignored_labels.append(index_of[entry["category_id"]])
        else:
            picture.boxes.append(box)
            picture.labels.append(index_of[entry["category_id"]])
    return dropped


def _annotation_problem(entry: Any, pictures: dict[int, _Picture], index_of: dict[int, int]) -> str:
    """Returns what is wrong with one annotation, or an empty string."""
    if not isinstance(entry, dict):
        return f"expected a mapping, got {entry!r}"
    image_id, category_id, bbox = entry.get("image_id"), entry.get("category_id"), entry.get("bbox")
    if type(image_id) is not int or image_id not in pictures:
        return f"image_id {image_id!r} is not in 'images'"
    name = pictures[image_id].file_name
    if type(category_id) is not int or category_id not in index_of:
        return f"category_id {category_id!r} ({name}) is not in the class list"
    numbers = (
        isinstance(bbox, list) and len(bbox) == 4 and all(type(v) in (int, float) and math.isfinite(v) for v in bbox)
    )
    return "" if numbers else f"bbox {bbox!r} ({name}) must be four finite numbers [x, y, width, height] in pixels"


def _spell(ids: tuple[int, ...]) -> str:
    if ids == tuple(range(ids[0], ids[0] + len(ids))):
        return f"{ids[0]}..{ids[-1]}"
    return ", ".join(map(str, ids))
