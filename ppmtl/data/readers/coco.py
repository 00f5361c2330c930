"""Detection: boxes from a COCO annotation file (TT100K in the challenge's form, or any other)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ppmtl.data.findings import FileError, Finding, refuse, shortened
from ppmtl.data.labels import Boxes
from ppmtl.data.listing import read_json, require_files
from ppmtl.data.reader import Reader
from ppmtl.data.readers._coco_checks import MIN_SIDE, class_findings, mask_remark, remarks
from ppmtl.ops.masks import Mask, Rle, unpacked
from ppmtl.structures import ClassList, Label, Size

log = logging.getLogger(__name__)

Object = tuple[list[float], int, Mask | None]  # xyxy pixel box, class index, mask where it is asked for and known

_LEAST = {"id": 0, "height": 1, "width": 1}
_FEWEST_NUMBERS = 6  # of a polygon: three points


@dataclass
class _Entry:
    """One entry of ``images`` with its annotations."""

    file_name: str
    size: Size
    objects: list[Object] = field(default_factory=list)
    ignored: list[Object] = field(default_factory=list)


class COCO(Reader):
    """Images of a folder with the boxes that a COCO file gives them.

    Images without objects stay in: they teach what is not an object. Boxes are clipped to the image; those left with a
    side below one pixel are dropped and counted in one warning. Crowd and ``ignore`` boxes become the label's
    ``ignored``. Category ids may have gaps; they are translated by the class list.

    Args:
        root: where relative paths start.
        tasks: the one task and its classes; ``ids`` are the file's category ids.
        images: folder that the ``file_name`` entries start from.
        annotations: the COCO file.

    Raises:
        ValueError: if it is no COCO file.
        DataError: with every wrong id, value or class name, and every missing image.
    """

    _with_masks: ClassVar[bool] = False

    def __init__(self, root: str | Path, tasks: Mapping[str, ClassList], *, images: str, annotations: str) -> None:
        super().__init__(root, tasks)
        self._task, classes = self.only_task()
        self._json, self._folder = self.root / annotations, self.root / images
        content = read_json(self._json)
        entries, wrong = image_entries(self._json, content)
        wrong += class_findings(self._json, content, classes)
        self._dropped, found = _attach_objects(self._json, entries, content["annotations"], classes, self._with_masks)
        wrong += [finding for finding in found if finding.severity == "error"]
        self.remarks += [finding for finding in found if finding.severity != "error"]
        self.remarks += remarks(self._json, content, {key: (e.file_name, e.size) for key, e in entries.items()})
        if wrong:
            ids = classes.ids
            spelt = f"{ids[0]}..{ids[-1]}" if ids == tuple(range(ids[0], ids[-1] + 1)) else ", ".join(map(str, ids))
            refuse(self._json, f"{len(wrong)} wrong entries; correct them, or the class list (its ids: {spelt})", wrong)
        self._entries, self._ids = list(entries.values()), list(entries)
        require_files(self._json, (self._folder / entry.file_name for entry in self._entries))
        if self._dropped:
            text = "%s: %d boxes dropped: outside their image or a side below %g px"
            log.warning(text, self._json, self._dropped, MIN_SIDE)

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        return [Path(root) / settings["images"], Path(root) / settings["annotations"]]

    def __len__(self) -> int:
        return len(self._entries)

    def path(self, index: int) -> str:
        return str(self._folder / self._entries[index].file_name)

    def image_id(self, index: int, task: str) -> int:  # noqa: ARG002
        """The file's own ``id``."""
        return self._ids[index]

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        """The boxes; ValueError if the image's size is not the one in the annotation file."""
        entry = self._fitting(index, image)
        return {self._task: Boxes(*arrays(entry.objects), *arrays(entry.ignored))}

    def _fitting(self, index: int, image: np.ndarray) -> _Entry:
        """The entry of an image; ValueError if the image's size is not the one that it says."""
        entry, size = self._entries[index], image.shape[:2]
        if size != entry.size:
            turned = " (turned: the boxes refer to the image without its EXIF orientation)"
            raise FileError(
                self.path(index),
                f"the image's (height, width) is {size}, but {self._json} says {entry.size}"
                f"{turned if size == entry.size[::-1] else ''}; boxes would be off: use the image that was annotated, or "
                "scale the annotations",
                "size_mismatch",
            )
        return entry

    def describe(self) -> str:
        empty = sum(not entry.objects for entry in self._entries)
        classes = [index for entry in self._entries for _, index, _ in entry.objects]
        ignored = sum(len(entry.ignored) for entry in self._entries)
        return (
            f"{self._json.name}: {len(self)} images ({empty} without objects), {len(classes)} boxes of "
            f"{len(set(classes))} out of {len(self.tasks[self._task])} classes; {ignored} crowd or ignored boxes, "
            f"{self._dropped} dropped"
        )


def arrays(objects: Sequence[Object]) -> tuple[np.ndarray, np.ndarray]:
    """The boxes (N, 4) float32 and the classes (N,) int64 of objects."""
    boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    return boxes, np.array([index for _, index, _ in objects], np.int64)


def image_entries(json_path: Path, content: Any) -> tuple[dict[int, _Entry], list[Finding]]:
    """{image id: entry without objects} in file order, and what is wrong.

    Raises:
        FileError: if it is no COCO file, or lists no images.
    """
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(part, list) for part in lists):
        raise FileError(json_path, "is no COCO file: it needs the lists 'images' and 'annotations'", "not_coco")
    if not content["images"]:
        raise FileError(
            json_path, "its 'images' list is empty; list the images, also those without objects", "no_images"
        )
    entries: dict[int, _Entry] = {}
    wrong: list[Finding] = []
    for position, entry in enumerate(content["images"]):
        if found := _image_problem(entry, entries):
            kind, problem = found
            wrong.append(Finding(f"{json_path}: images[{position}]", problem, kind=kind))
        else:
            entries[entry["id"]] = _Entry(entry["file_name"], (entry["height"], entry["width"]))
    names = Counter(entry.file_name for entry in entries.values())
    wrong += [
        Finding(f"{json_path}: images", f"file name {name!r} is listed {n} times", kind="listed_twice")
        for name, n in names.items()
        if n > 1
    ]
    return entries, wrong


def _image_problem(entry: Any, entries: Mapping[int, _Entry]) -> tuple[str, str] | None:
    """The kind of what is wrong with one entry of ``images`` and a description; None if nothing is."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return "bad_image_entry", f"no text 'file_name' in {entry!r}"
    name = entry["file_name"]
    if not all(type(entry.get(key)) is int and entry[key] >= least for key, least in _LEAST.items()):
        return "bad_image_entry", f"({name}) 'id', 'height' and 'width' must be whole numbers, got {entry!r}"
    if entry["id"] in entries:
        return "image_id_twice", f"({name}) image id {entry['id']} is already {entries[entry['id']].file_name}"
    return None


def _attach_objects(
    json_path: Path, entries: dict[int, _Entry], annotations: list[Any], classes: ClassList, with_masks: bool
) -> tuple[int, list[Finding]]:
    """Adds every annotation to its image; those that are wrong become None in ``annotations``.

    Returns:
        How many boxes were dropped as too small or outside, and what is wrong or, with masks, odd about them.
    """
    index_of = classes.index_of()
    dropped = 0
    found: list[Finding] = []
    for position, annotation in enumerate(annotations):
        place, mask = f"{json_path}: annotations[{position}]", None
        problem = _annotation_problem(annotation, entries, index_of)
        if problem is None and with_masks:
            mask, problem = _checked_mask(annotation.get("segmentation"), entries[annotation["image_id"]])
        if problem is not None:
            found.append(Finding(place, problem[1], kind=problem[0]))
            annotations[position] = None
            continue
        entry, index = entries[annotation["image_id"]], index_of[annotation["category_id"]]
        (height, width), (x, y, w, h) = entry.size, annotation["bbox"]
        box = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
        if w <= 0 or h <= 0 or box[2] - box[0] < MIN_SIDE or box[3] - box[1] < MIN_SIDE:
            dropped += 1
        else:
            crowd = annotation.get("iscrowd") or annotation.get("ignore")
            (entry.ignored if crowd else entry.objects).append((box, index, mask))
            if mask is not None and (text := mask_remark(mask, annotation["bbox"])):
                found.append(Finding(f"{place} ({entry.file_name})", text, "warning", "mask_outside_box"))
    return dropped, found


def _checked_mask(segmentation: Any, entry: _Entry) -> tuple[Mask | None, tuple[str, str] | None]:
    """The mask, and the kind of what is wrong with it and a description, None if nothing is."""
    try:
        return _mask(segmentation, entry.size), None
    except ValueError as error:
        kind = "bad_polygon" if isinstance(segmentation, list) else "bad_run_lengths"
        return None, (kind, f"segmentation ({entry.file_name}): {error}")


def _mask(segmentation: Any, size: Size) -> Mask | None:
    """The mask of a COCO ``segmentation``, None where there is none; ValueError saying what is wrong with it."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        return tuple(_ring(polygon) for polygon in segmentation)
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if isinstance(counts, str):
        counts = unpacked(counts)
    elif not (isinstance(counts, list) and all(type(n) is int and 0 <= n < 2**31 for n in counts)):
        raise ValueError(
            "must be a list of polygons, or run lengths as a mapping with 'size' and 'counts' (whole numbers, or COCO's "
            f"compressed text), got {shortened(segmentation)}"
        )
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"its run lengths are for [height, width] {segmentation.get('size')}, the image has {list(size)}"
        )
    return Rle(size, np.array(counts, np.int64))


def _ring(polygon: Any) -> np.ndarray:
    numbers = polygon if isinstance(polygon, list) and all(type(v) in (int, float) for v in polygon) else []
    if len(numbers) < _FEWEST_NUMBERS or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"a polygon is a list x1, y1, x2, y2, ... of three or more points, got {shortened(polygon)}")
    return np.array(numbers, np.float64).reshape(-1, 2)


def _annotation_problem(
    annotation: Any, entries: Mapping[int, _Entry], index_of: Mapping[int, int]
) -> tuple[str, str] | None:
    """The kind of what is wrong with one entry of ``annotations`` and a description; None if nothing is."""
    if not isinstance(annotation, dict):
        return "bad_annotation", f"expected a mapping, got {annotation!r}"
    image_id, category_id, bbox = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    if type(image_id) is not int or image_id not in entries:
        return "dangling_image_id", f"image_id {image_id!r} is not in 'images'"
    name = entries[image_id].file_name
    if type(category_id) is not int or category_id not in index_of:
        return "unknown_class", f"category_id {category_id!r} ({name}) is not in the class list"
    numbers = [v for v in bbox if type(v) in (int, float) and math.isfinite(v)] if isinstance(bbox, list) else []
    if len(numbers) != 4 or numbers != bbox:
        return "bad_box", f"bbox {bbox!r} ({name}) must be four finite numbers [x, y, width, height] in pixels"
    return None
