"""Finds everything wrong with a submission file, each finding with its place in the file."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.challenge.expected import Expected
from ppmtl.challenge.reading import sections
from ppmtl.data.findings import Finding
from ppmtl.structures import Size

_DET_KEYS = ("image_id", "category_id", "bbox", "score")
_SLACK = 0.01  # pixels: what float32 and rounding may add to a box that ends at the border


def check(file: str | Path, expected: Expected) -> list[Finding]:
    """Returns all findings: schema, coverage, names, ids, boxes, scores, polygons; [] for a sound file.

    Both forms of seg and cls are read; the dict form is a warning.

    Raises:
        ValueError: the file cannot be read at all. (Broken JSON is a finding.)
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    findings: list[Finding] = []
    checkers: dict[str, _Seg | _Cls | _Det] = {"seg": _Seg(expected), "cls": _Cls(expected), "dec": _Det(expected)}
    seen = set()
    try:
        for name, form, entries in sections(path):
            if name not in checkers:
                findings.append(Finding(name, "unknown section; the scorer reads seg, cls and dec", "warning"))
                continue
            if name in seen:
                findings.append(Finding(name, "stands in the file twice; readers keep only the last one"))
            seen.add(name)
            if form == "other" or (form == "dict" and name == "dec"):
                findings.append(Finding(name, "must be a list"))
                continue
            if form == "dict":
                findings.append(
                    Finding(name, "is one dict; the official scorer wants a list of one-key dicts", "warning")
                )
            for place, value in entries:
                findings.extend(checkers[name].entry(place, value))
    except ValueError as error:
        return [*findings, Finding("file", str(error))]
    for name, checker in checkers.items():
        if name in seen:
            findings.extend(checker.coverage())
        else:
            findings.append(Finding(name, "is missing; the file needs seg, cls and dec"))
    return findings


class _Named(ABC):
    """What seg and cls share: one-key dicts, known names, each once, all of them."""

    section: str

    def __init__(self, expected: Expected, names: tuple[str, ...]) -> None:
        self.expected, self._wanted, self._seen = expected, names, set[str]()
        self._known = frozenset(names)

    def entry(self, place: str, value: Any) -> Iterator[Finding]:
        """Yields what is wrong with one entry."""
        if not isinstance(value, dict) or len(value) != 1:
            yield Finding(place, f"must be a dict with one key, the picture's name; got {_brief(value)}")
            return
        ((name, content),) = value.items()
        place = f"{place}[{json.dumps(name)}]"
        if name not in self._known:
            yield Finding(place, "no such picture in the test list")
        elif name in self._seen:
            yield Finding(place, "this picture is there already")
        self._seen.add(name)
        yield from self.content(place, name, content)

    @abstractmethod
    def content(self, place: str, name: str, content: Any) -> Iterator[Finding]:
        """Yields what is wrong with the answer for one picture."""

    def coverage(self) -> Iterator[Finding]:
        """Yields the pictures without an answer."""
        for name in self._wanted:
            if name not in self._seen:
                yield Finding(self.section, f"no entry for {json.dumps(name)}")


class _Cls(_Named):
    section = "cls"

    def __init__(self, expected: Expected) -> None:
        super().__init__(expected, expected.cls_names)

    def content(self, place: str, name: str, content: Any) -> Iterator[Finding]:  # noqa: ARG002
        if not _is_int(content):
            yield Finding(place, f"must be a whole number, got {_brief(content)}")
        elif not 0 <= content < self.expected.cls_classes:
            yield Finding(place, f"must be 0..{self.expected.cls_classes - 1}, got {content}")


class _Seg(_Named):
    section = "seg"

    def __init__(self, expected: Expected) -> None:
        super().__init__(expected, tuple(expected.seg_sizes))
        self._keys = [str(index) for index in range(expected.seg_classes)]

    def content(self, place: str, name: str, content: Any) -> Iterator[Finding]:
        if not isinstance(content, dict):
            yield Finding(place, f"must be a dict of polygons per class, got {_brief(content)}")
            return
        for key in self._keys:
            if key not in content:
                yield Finding(place, f'class "{key}" is missing; an absent class is []')
        known = [key for key in content if key in self._keys]
        if known != sorted(known, key=int):
            yield Finding(
                place, "classes are not in rising order; the scorer paints them in the file's order", "warning"
            )
        size = self.expected.seg_sizes.get(name)
        for key, contours in content.items():
            where = f"{place}[{json.dumps(key)}]"
            if key not in self._keys:
                yield Finding(where, f'unknown class; classes are "0" to "{self._keys[-1]}"')
            if not isinstance(contours, list):
                yield Finding(where, f"must be a list of contours, got {_brief(contours)}")
                continue
            for index, contour in enumerate(contours):
                yield from _check_contour(f"{where}[{index}]", contour, size)


class _Det:
    """Rows of boxes."""

    def __init__(self, expected: Expected) -> None:
        self._expected, self._seen = expected, set[int]()

    def entry(self, place: str, value: Any) -> Iterator[Finding]:
        """Yields what is wrong with one row."""
        if not isinstance(value, dict):
            yield Finding(place, f"must be a dict with {', '.join(_DET_KEYS)}; got {_brief(value)}")
            return
        for key in _DET_KEYS:
            if key not in value:
                yield Finding(place, f"{key} is missing")
        for key in sorted(value.keys() - set(_DET_KEYS)):
            yield Finding(f"{place}[{json.dumps(key)}]", "unknown key; the scorer does not read it", "warning")
        size = None
        if "image_id" in value:
            image_id, count = value["image_id"], len(self._expected.det_sizes)
            if _is_int(image_id) and 1 <= image_id <= count:
                size = self._expected.det_sizes[image_id - 1]
                self._seen.add(image_id)
            else:
                yield Finding(f'{place}["image_id"]', f"must be a line of test.txt, 1..{count}; got {_brief(image_id)}")
        if "category_id" in value:
            category, known = value["category_id"], self._expected.category_ids
            if not _is_int(category) or (known and category not in known):
                wanted = f"one of {min(known)}..{max(known)} in val.json" if known else "a whole number"
                yield Finding(f'{place}["category_id"]', f"must be {wanted}, got {_brief(category)}")
        if "bbox" in value:
            yield from _check_box(f'{place}["bbox"]', value["bbox"], size)
        if "score" in value:
            score = value["score"]
            if not _is_finite(score) or not 0 <= score <= 1:
                yield Finding(f'{place}["score"]', f"must be a number 0..1, got {_brief(score)}")

    def coverage(self) -> Iterator[Finding]:
        """Yields the pictures without a box: allowed, but worth a look."""
        for image_id in range(1, len(self._expected.det_sizes) + 1):
            if image_id not in self._seen:
                yield Finding("dec", f"no box for image_id {image_id}", "warning")


def _check_box(place: str, box: Any, size: Size | None) -> Iterator[Finding]:
    if not isinstance(box, list) or len(box) != 4:
        yield Finding(place, f"must be [x, y, width, height], got {_brief(box)}")
        return
    bad = [index for index, number in enumerate(box) if not _is_finite(number)]
    for index in bad:
        yield Finding(f"{place}[{index}]", f"must be a finite number, got {_brief(box[index])}")
    if bad:
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield Finding(place, f"width and height must be above 0, got {_brief(box)}; is it x1 y1 x2 y2?")
    elif size is not None:
        limit = f"the picture (width {size[1]}, height {size[0]})"
        if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
            yield Finding(place, f"lies outside {limit}: {_brief(box)}")
        elif min(x, y) < -_SLACK or x + width > size[1] + _SLACK or y + height > size[0] + _SLACK:
            yield Finding(place, f"reaches beyond {limit}: {_brief(box)}", "warning")


def _check_contour(place: str, contour: Any, size: Size | None) -> Iterator[Finding]:
    if not isinstance(contour, list):
        yield Finding(place, f"must be a list of points, got {_brief(contour)}")
        return
    if len(contour) < 3:
        yield Finding(place, f"has {len(contour)} points; the scorer skips contours below 3: repeat a point", "warning")
        return
    if _is_plainly_sound(contour, size):
        return
    for index, point in enumerate(contour):
        where = f"{place}[{index}]"
        if not isinstance(point, list) or len(point) != 2:
            yield Finding(where, f"must be a point [x, y], got {_brief(point)}")
        elif not _is_int(point[0]) or not _is_int(point[1]):
            yield Finding(where, f"must be whole pixel numbers, got {_brief(point)}")
        elif size is not None and not (0 <= point[0] < size[1] and 0 <= point[1] < size[0]):
            yield Finding(where, f"lies outside the picture (width {size[1]}, height {size[0]}): {_brief(point)}")


def _is_plainly_sound(contour: list[Any], size: Size | None) -> bool:
    """Returns whether numpy sees an (n, 2) integer array within the picture; walking the points is 20x slower."""
    try:
        points = np.array(contour)
    except (ValueError, OverflowError):  # ragged, or beyond 64 bits
        return False
    if points.dtype != np.int64 or points.shape != (len(contour), 2):
        return False
    return size is None or bool(points.min() >= 0 and points[:, 0].max() < size[1] and points[:, 1].max() < size[0])


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
