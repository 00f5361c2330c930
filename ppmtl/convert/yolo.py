"""YOLO text files (Ultralytics, Darknet): boxes -> COCO boxes, polygons -> COCO instances.

    DATA/data.yaml                     names, and train, val, test: a folder, several, or a text file that lists images
    DATA/images/train/**/a.jpg         DATA/labels/train/**/a.txt

Without a yaml file names come from classes.txt, obj.names or --classes, splits are images/train, images/val and images/test.
A line is "class x_centre y_centre width height" or "class x1 y1 x2 y2 x3 y3 ...", as shares of the image's width and height.
Class numbers stay what they are (gaps are closed). An image without a text file is an image without objects.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ppmtl.convert._output import Item, Objects, Output
from ppmtl.convert._reading import as_number, hull, image_size, images_below
from ppmtl.data.listing import read_text
from ppmtl.structures import Size

_SPLITS = ("train", "val", "test")
_BEYOND = 0.01  # share of the image that rounding and careless drawing may lie outside
_BOX, _FEWEST = 5, 7  # numbers in a line: a box, a polygon of three points


def convert(data: Path, out: Output) -> None:
    """Adds every image of every split."""
    settings = _settings(data)
    names = _names(data, settings, out.keep)
    found: list[tuple[str, Path, Objects]] = []
    for split in _SPLITS:
        for image in out.progress(_images(data, settings, split, out), split):
            with out.checking(image):
                if out.there(image):
                    found.append((split, image, _objects(image, names, out)))
    polygons = any(item.polygons for _, _, objects in found for item in objects.items)
    task = "ins" if polygons else "det"
    out.classes(task, names.values())
    for split in _SPLITS:
        of_split = [(image, objects) for of, image, objects in found if of == split]
        folder = Path(os.path.commonpath([image.parent for image, _ in of_split])) if of_split else data
        for image, objects in of_split:
            with out.checking(image):
                out.add(task, split, folder, image, objects)


def _settings(data: Path) -> dict[str, Any]:
    """The yaml file that has names, or {}."""
    for file in sorted([*data.glob("*.yaml"), *data.glob("*.yml")]):
        try:
            content = yaml.safe_load(read_text(file))
        except yaml.YAMLError as error:
            raise ValueError(f"{file}: is no YAML ({error})") from error
        if isinstance(content, dict) and "names" in content:
            if "kpt_shape" in content:
                raise ValueError(f"{file}: kpt_shape: these are key points, which no task here learns")
            return content
    return {}


def _names(data: Path, settings: dict[str, Any], keep: tuple[str, ...]) -> dict[int, str]:
    """{class number: name}, in the order of the numbers."""
    names = settings.get("names")
    if names is None:
        files = [data / name for name in ("classes.txt", "obj.names") if (data / name).is_file()]
        names = [line.strip() for line in read_text(files[0]).splitlines() if line.strip()] if files else list(keep)
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(number) is int for number in names):
        raise ValueError(f"{data}: needs data.yaml with names (a list, or a name per number), classes.txt or --classes")
    return {number: str(names[number]) for number in sorted(names)}


def _images(data: Path, settings: dict[str, Any], split: str, out: Output) -> list[Path]:
    """The images of a split; those that a text file lists need not be there."""
    entries = settings.get(split) if settings else f"images/{split}" if (data / "images" / split).is_dir() else None
    images: list[Path] = []
    for entry in entries if isinstance(entries, list) else [entries] if entries else []:
        tried = _places(data, str(settings.get("path", ".")), str(entry))
        place = next((path for path in tried if path.exists()), None)
        if place is None and split == "test":  # many yaml files name one that nobody has
            out.skip(f"test set that is not there: {entry}")
        elif place is None:
            raise ValueError(f"{data}: {split}: {entry!r} is not there; looked for {', '.join(map(str, tried))}")
        elif place.is_file():
            lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            images += [Path(os.path.normpath(place.parent / line)) for line in lines]
        else:
            images += images_below(place)
    return images


def _places(data: Path, base: str, entry: str) -> list[Path]:
    """What a split's entry may mean; "path" and "../" mislead where the yaml file does not lie where it was written."""
    folders = (data / base, data)
    names = (entry, entry.removeprefix("../"))
    return list(dict.fromkeys(Path(os.path.normpath(folder / name)) for folder in folders for name in names))


def _label_file(image: Path) -> Path:
    """``images/a.jpg`` -> ``labels/a.txt``, at the last folder called images; beside the image if there is none."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _objects(image: Path, names: dict[int, str], out: Output) -> Objects:
    size, file = image_size(image), _label_file(image)
    items = []
    for number, line in enumerate(read_text(file).splitlines() if file.is_file() else (), start=1):
        if line.strip():
            with out.checking(f"{file}:{number}"):
                items.append(_item(line, names, size))
    return Objects(size, items)


def _item(line: str, names: dict[int, str], size: Size) -> Item:
    words = line.split()
    if len(words) != _BOX and (len(words) < _FEWEST or len(words) % 2 == 0):
        raise ValueError(
            f"has {len(words)} numbers; a box has 5, a polygon 7 or more and an odd count (class, then x y pairs)"
        )
    if not words[0].isdecimal() or int(words[0]) not in names:
        raise ValueError(f"class {words[0]!r} is none of the {len(names)} that have a name, {min(names)}..{max(names)}")
    shares = [as_number(word, f"number {place}") for place, word in enumerate(words[1:], start=2)]
    if min(shares) < -_BEYOND or max(shares) > 1 + _BEYOND:
        raise ValueError(f"coordinates must be shares of the image, 0..1, got {min(shares):g}..{max(shares):g}")
    height, width = size
    pixels = [share * side for share, side in zip(shares, (width, height) * (len(shares) // 2), strict=True)]
    if len(words) == _BOX:
        x, y, w, h = pixels
        return Item(names[int(words[0])], (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return Item(names[int(words[0])], hull([pixels]), (pixels,))
