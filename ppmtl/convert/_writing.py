"""The files of a converted data set: COCO json, list of images, label maps, and the lines of a config."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from ppmtl.structures import Size

CONFIG = "config.yml"  # also the mark of a folder that this tool wrote
_TYPES = {"det": ("detection", "coco"), "ins": ("instances", "coco_instances"), "cls": ("classification", "image_list"),
          "seg": ("segmentation", "label_png")}  # fmt: skip
_TRAINING, _VALIDATION = ("train", "trainval", "all"), ("val", "valid", "test")


@dataclass(frozen=True)
class Item:
    """One object of an image.

    Attributes:
        name: of its class.
        box: x1, y1, x2, y2 in pixels, continuous: pixel i covers [i, i + 1).
        polygons: x1, y1, x2, y2, ... in such pixels; () for an object with a box only.
        crowd: it stands for many that cannot be told apart.
        ignore: it is no target, and evaluation neither counts nor punishes it.
    """

    name: str
    box: tuple[float, float, float, float]
    polygons: tuple[Sequence[float], ...] = ()
    crowd: bool = False
    ignore: bool = False


@dataclass(frozen=True)
class Objects:
    """The objects of an image of ``size`` (height, width) as it is shown, that is after its EXIF turn."""

    size: Size
    items: Sequence[Item]


Said = Objects | str | np.ndarray | None  # objects, a class, a label map (H, W) uint8, or one that is written already


def write_map(path: Path, label_map: np.ndarray) -> None:
    """Writes a label map as grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", label_map)[1].tobytes())  # cv2.imwrite cannot write every path


def write_coco(path: Path, folder: Path, said: Mapping[Path, Said], names: Sequence[str]) -> int:
    """Writes a COCO file whose category ids are the classes' indices, and returns the number of objects.

    Args:
        path: to write.
        folder: what file names start from.
        said: {image: its objects}.
        names: of the classes; objects of others are left out.
    """
    index_of = {name: index for index, name in enumerate(names)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (image, objects) in enumerate(said.items(), start=1):
        assert isinstance(objects, Objects)
        height, width = objects.size
        file_name = image.relative_to(folder).as_posix()
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for item in objects.items:
            if item.name in index_of:
                number = len(annotations) + 1  # from 1: pycocotools takes an annotation 0 for none
                annotations.append(
                    {"id": number, "image_id": image_id, "category_id": index_of[item.name], **_shape(item)}
                )
    categories = [{"id": index, "name": name} for name, index in index_of.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return len(annotations)


def _shape(item: Item) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    area = (x2 - x1) * (y2 - y1)
    if item.polygons:
        area = sum(cv2.contourArea(np.array(ring, np.float32).reshape(-1, 2)) for ring in item.polygons)
    result = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": int(item.crowd)}
    result |= {"ignore": 1} if item.ignore else {}
    return result | ({"segmentation": [list(ring) for ring in item.polygons]} if item.polygons else {})


def write_list(path: Path, folder: Path, said: Mapping[Path, Said], names: Sequence[str]) -> int:
    """Writes lines ``name id`` of the images of these classes, and returns their number."""
    index_of = {name: index for index, name in enumerate(names)}
    listed = [(image, index_of[name]) for image, name in said.items() if isinstance(name, str) and name in index_of]
    lines = [f"{image.relative_to(folder).as_posix()} {index}\n" for image, index in listed]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Writes lines ``id name``; with ids, names like "30 km/h" cannot be taken for them."""
    path.write_text("".join(f"{index} {name}\n" for index, name in enumerate(names)), encoding="utf-8")


def annotations_name(task: str, split: str) -> str:
    """What the file or folder of a task's annotations is called."""
    return f"{task}_{split}" + {"det": ".json", "ins": ".json", "cls": ".txt", "seg": ""}[task]


def classes_name(task: str, split: str) -> str:
    """What the file with a task's class names is called."""
    return annotations_name(task, split) if task in ("det", "ins") else f"{task}_classes.txt"


def config_lines(root: Path, out: Path, images: Mapping[tuple[str, str], Path], gaps: Sequence[tuple[str, str]]) -> str:
    """The keys of a config that read what was written.

    Args:
        root: the ``data_root`` that all paths start from.
        out: the folder with the annotations.
        images: {(task, split): the folder of its images}.
        gaps: those whose folder has images without a label map.
    """
    config: dict[str, Any] = {"data_root": str(root), "tasks": {}, "sources": {}, "eval": {"datasets": {}}}
    for task in dict.fromkeys(task for task, _ in images):
        task_type, reader = _TYPES[task]
        splits = {split: folder for (of, split), folder in images.items() if of == task}
        names = _way(out / classes_name(task, next(iter(splits))), root)
        config["tasks"][task] = {"type": task_type, "classes": {"names": names}}
        datasets = {}
        for split, folder in splits.items():
            labels = {"cls": "list_file", "seg": "labels"}.get(task, "annotations")
            datasets[split] = {
                "type": reader,
                "images": _way(folder, root),
                labels: _way(out / annotations_name(task, split), root),
            }
            datasets[split] |= {"missing_labels": "skip"} if (task, split) in gaps else {}
        if training := next((split for split in _TRAINING if split in datasets), None):
            config["sources"][task] = {"dataset": datasets[training]}
        if validation := next((split for split in _VALIDATION if split in datasets), None):
            config["eval"]["datasets"][task] = datasets[validation]
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=1000)


def _way(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
