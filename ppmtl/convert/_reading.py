"""What formats share in reading: checked fields of JSON, images by name, sizes from headers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from ppmtl.data.findings import shortened
from ppmtl.data.headers import shown_size
from ppmtl.data.images import SUFFIXES
from ppmtl.structures import Size

_WORDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}


def take(entry: Any, key: str, kind: type) -> Any:
    """``entry[key]``, a ``dict``, ``list`` or ``str``; ValueError naming the key if it is missing or something else."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"'{key}' must be {_WORDS[kind]}, got {shown(value)}")
    return value


def number(entry: Any, key: str) -> float:
    """``entry[key]`` as a finite number; ValueError naming the key if it is none."""
    return as_number(entry.get(key) if isinstance(entry, dict) else None, f"'{key}'")


def as_number(value: Any, what: str) -> float:
    """The finite number that a value, or its text, is; ValueError saying ``what`` it is if it is none."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise ValueError(f"{what} must be a number, got {shown(value)}")
    return found


def shown(value: Any) -> str:
    """What a message can show of a value from a file, where a missing one is "nothing"."""
    return "nothing" if value is None else shortened(value)


def corners(entry: Any, keys: tuple[str, str, str, str]) -> tuple[float, float, float, float]:
    """The box of the keys' values, x1, y1, x2, y2; ValueError if one is no number or the box is turned inside out."""
    x1, y1, x2, y2 = (number(entry, key) for key in keys)
    if x2 < x1 or y2 < y1:
        raise ValueError(f"{', '.join(keys)} must be left, top, right, bottom, got {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    return x1, y1, x2, y2


def as_points(value: list[Any], what: str) -> list[tuple[float, float]]:
    """The corners of a polygon; ValueError saying ``what`` it is if it is no list of points [x, y]."""
    if not all(isinstance(point, list) and len(point) == 2 for point in value):
        raise ValueError(f"{what} must be a list of points [x, y], got {shown(value)}")
    return [(as_number(x, what), as_number(y, what)) for x, y in value]


def hull(polygons: Iterable[list[float]]) -> tuple[float, float, float, float]:
    """The box around polygons x1, y1, x2, y2, ..."""
    every = [value for polygon in polygons for value in polygon]
    return min(every[::2]), min(every[1::2]), max(every[::2]), max(every[1::2])


def image_size(path: Path) -> Size:
    """(height, width) of an image as it is shown, from its header; ValueError naming the file if it is no image."""
    try:
        with Image.open(path) as image:
            return shown_size(image)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: is no image ({error}); replace it or remove it from the data set") from error


def checked_size(path: Path, said: tuple[float, float]) -> Size:
    """(height, width) of an image; ValueError if the annotation ``said`` another one (0 = it did not say)."""
    size = image_size(path)
    if any(said) and tuple(said) != size:
        turned = " (turned: they refer to the image without its EXIF orientation)" if said[::-1] == size else ""
        raise ValueError(
            f"height and width are {said[0]:g}, {said[1]:g} here, but {path} has {size[0]}, {size[1]}{turned}; use the image "
            "that was annotated"
        )
    return size


def image_named(folder: Path, stem: str, name: str = "") -> Path:
    """The image of an annotation file: ``name`` if it is in the folder, else the one called ``stem`` and any ending.

    Where neither is there, the path that was looked for first.
    """
    wanted = [folder / name] if name else []
    wanted += [folder / f"{stem}{suffix}" for end in SUFFIXES for suffix in (end, end.upper())]
    return next((path for path in wanted if path.is_file()), wanted[0])


def images_below(folder: Path) -> list[Path]:
    """The image files of a folder and its sub-folders, by name."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(files)


def first_there(data: Path, *names: str) -> Path:
    """The first of several files or folders below ``data`` that is there; ValueError naming all if none is."""
    found = next((data / name for name in names if (data / name).exists()), None)
    if found is None:
        raise ValueError(f"{data}: needs {' or '.join(names)}; is it the right folder? --help shows the layout")
    return found
