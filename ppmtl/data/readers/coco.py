"""Detection: boxes from a COCO annotation file (TT100K in the challenge's form, or any other)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from ppmtl.data.findings import DataError, Finding
from ppmtl.data.labels import Boxes
from ppmtl.data.listing import missing_files, read_json, under
from ppmtl.data.reader import Reader
from ppmtl.structures import ClassList, Label, Size

log = logging.getLogger(__name__)


@dataclass
class _Entry:
    """One entry of ``images`` with its annotations; boxes are xyxy pixels, classes class indices."""

    file_name: str
    size: Size
    boxes: list[list[float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    ignored: list[list[float]] = field(default_factory=list)
    ignored_classes: list[int] = field(default_factory=list)


class COCO(Reader):
    """Images of a folder with the boxes that a COCO file gives them.

    Images without objects stay in: they teach what is not an object. Boxes are clipped to the image; those left with a
    side below ``min_box_side`` are dropped and counted in one warning. Crowd and ``ignore`` boxes become the label's
    ``ignored``. Category ids may have gaps; they are translated by the class list.

    Args:
        root: where relative paths start.
        tasks: the one task and its classes; ``ids`` are the file's category ids.
        images: folder that the ``file_name`` entries start from.
        annotations: the COCO file.
        min_box_side: in pixels.

    Raises:
        ValueError: if it is no COCO file.
        DataError: with every wrong id or value, and every missing image.
    """

    def __init__(
        self,
        root: str | Path,
        tasks: Mapping[str, ClassList],
        *,
        images: str,
        annotations: str,
        min_box_side: Annotated[float, Ge(0.0)] = 1.0,
    ) -> None:
        super().__init__(root, tasks)
        self._task, classes = self.only_task()
        self._json, self._folder = under(root, annotations), under(root, images)
        content = read_json(self._json)
        wrong: list[Finding] = []
        entries = _entries(self._json, content, wrong)
        self._dropped = _attach_boxes(entries, content, classes, min_box_side, wrong)
        if wrong:
            raise DataError(
                f"{self._json}: {len(wrong)} wrong entries; correct them, or the class list (its ids: {_spell(classes.ids)})",
                wrong,
            )
        self._entries = list(entries.values())
        if missing := missing_files(self._folder / entry.file_name for entry in self._entries):
            raise DataError(
                f"{self._json}: {len(missing)} files are listed but missing; restore them, or remove their entries",
                missing,
            )
        if self._dropped:
            log.warning(
                "%s: %d boxes dropped: outside their image or a side below %g px",
                self._json,
                self._dropped,
                min_box_side,
            )

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        """The folder and the annotation file."""
        return [under(root, settings["images"]), under(root, settings["annotations"])]

    def __len__(self) -> int:
        return len(self._entries)

    def path(self, index: int) -> str:
        """The image file of sample ``index``."""
        return str(self._folder / self._entries[index].file_name)

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        """The boxes.

        Raises:
            ValueError: if the image's size is not the one in the annotation file.
        """
        entry, size = self._entries[index], image.shape[:2]
        if size != entry.size:
            turned = " (turned: the boxes refer to the image without its EXIF orientation)"
            raise ValueError(
                f"{self.path(index)}: the image's (height, width) is {size}, but {self._json} says {entry.size}"
                f"{turned if size == entry.size[::-1] else ''}; boxes would be off: use the image that was annotated, or "
                "scale the annotations"
            )
        boxes = Boxes(
            np.array(entry.boxes, np.float32).reshape(-1, 4),
            np.array(entry.classes, np.int64),
            np.array(entry.ignored, np.float32).reshape(-1, 4),
            np.array(entry.ignored_classes, np.int64),
        )
        return {self._task: boxes}

    def describe(self) -> str:
        """One line: images, how many of them without objects, boxes, classes, and what was left out."""
        empty = sum(not entry.boxes for entry in self._entries)
        boxes = sum(len(entry.boxes) for entry in self._entries)
        ignored = sum(len(entry.ignored) for entry in self._entries)
        used = {index for entry in self._entries for index in entry.classes}
        return (
            f"{self._json.name}: {len(self)} images ({empty} without objects), {boxes} boxes of {len(used)} out of "
            f"{len(self.tasks[self._task])} classes; {ignored} crowd or ignored boxes, {self._dropped} dropped"
        )


def _entries(json_path: Path, content: Any, wrong: list[Finding]) -> dict[int, _Entry]:
    """{image id: entry without boxes} in file order; adds what is wrong to ``wrong``."""
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(f"{json_path}: is no COCO file: it needs the lists 'images' and 'annotations'")
    if not content["images"]:
        raise ValueError(f"{json_path}: its 'images' list is empty; list the images, also those without objects")
    entries: dict[int, _Entry] = {}
    for position, entry in enumerate(content["images"]):
        problem = _image_problem(entry, entries)
        if problem:
            wrong.append(Finding(f"images[{position}]", problem))
        else:
            entries[entry["id"]] = _Entry(entry["file_name"], (entry["height"], entry["width"]))
    names = Counter(entry.file_name for entry in entries.values())
    wrong += [Finding("images", f"file name {name!r} is listed {n} times") for name, n in names.items() if n > 1]
    return entries


def _image_problem(entry: Any, entries: Mapping[int, _Entry]) -> str:
    """What is wrong with one entry of ``images``, or an empty string."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return f"no text 'file_name' in {entry!r}"
    name = entry["file_name"]
    if not all(type(entry.get(key)) is int and entry[key] >= low for key, low in _WHOLE_NUMBERS.items()):
        return f"({name}) 'id', 'height' and 'width' must be whole numbers, got {entry!r}"
    if entry["id"] in entries:
        return f"({name}) image id {entry['id']} is already {entries[entry['id']].file_name}"
    return ""


_WHOLE_NUMBERS = {"id": 0, "height": 1, "width": 1}


def _attach_boxes(
    entries: dict[int, _Entry], content: Any, classes: ClassList, min_side: float, wrong: list[Finding]
) -> int:
    """Adds every annotation to its image; returns how many boxes were dropped as too small or outside."""
    index_of = classes.index_of()
    dropped = 0
    for position, annotation in enumerate(content["annotations"]):
        problems = list(_annotation_problems(annotation, entries, index_of))
        wrong += [Finding(f"annotations[{position}]", problem) for problem in problems]
        if problems:
            continue
        entry, index = entries[annotation["image_id"]], index_of[annotation["category_id"]]
        (height, width), (x, y, w, h) = entry.size, annotation["bbox"]
        box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
        if w <= 0 or h <= 0 or box[2] - box[0] < min_side or box[3] - box[1] < min_side:
            dropped += 1
        elif annotation.get("iscrowd") or annotation.get("ignore"):
            entry.ignored.append(box)
            entry.ignored_classes.append(index)
        else:
            entry.boxes.append(box)
            entry.classes.append(index)
    return dropped


def _annotation_problems(annotation: Any, entries: Mapping[int, _Entry], index_of: Mapping[int, int]) -> Iterator[str]:
    """The first thing that is wrong with one annotation, if any."""
    if not isinstance(annotation, dict):
        yield f"expected a mapping, got {annotation!r}"
        return
    image_id, category_id, bbox = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    if type(image_id) is not int or image_id not in entries:
        yield f"image_id {image_id!r} is not in 'images'"
        return
    name = entries[image_id].file_name
    if type(category_id) is not int or category_id not in index_of:
        yield f"category_id {category_id!r} ({name}) is not in the class list"
    elif not (
        isinstance(bbox, list) and len(bbox) == 4 and all(type(v) in (int, float) and math.isfinite(v) for v in bbox)
    ):
        yield f"bbox {bbox!r} ({name}) must be four finite numbers [x, y, width, height] in pixels"


def _spell(ids: tuple[int, ...]) -> str:
    if ids == tuple(range(ids[0], ids[0] + len(ids))):
        return f"{ids[0]}..{ids[-1]}"
    return ", ".join(map(str, ids))
