"""Finds everything wrong with a submission file, each finding with its place in the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.challenge.expected import Expected
from ppmtl.challenge.reading import Section, SubmissionFile
from ppmtl.data.findings import Finding
from ppmtl.structures import Size

_Fields = dict[str, tuple[str, Callable[[Any], bool]]]
_FORMS = {"seg": ("list", "dict"), "cls": ("list", "dict"), "dec": ("list",)}
_SLACK = 0.01  # pixels: what float32 and rounding may add to a box that ends at the border


def check(file: str | Path, expected: Expected) -> list[Finding]:
    """All findings: schema, coverage, names, ids, boxes, scores, polygons; [] for a sound file.

    Both forms of seg and cls are read; the dict form is a warning. Broken JSON is a finding.
    """
    submission = SubmissionFile(Path(file))
    wanted: dict[str, Collection[Any] | None] = {  # None: not known
        "seg": expected.seg_sizes,
        "cls": expected.cls_names and dict.fromkeys(expected.cls_names),
        "dec": expected.det_sizes and range(1, len(expected.det_sizes) + 1),
    }
    seen: dict[str, set[Any]] = {name: set() for name in wanted}
    fields = _fields(expected)
    findings: list[Finding] = []
    try:
        for section, place, entry in submission:
            if section.form not in _FORMS.get(section.name, ()):
                continue
            if section.name == "dec":
                findings += _check_row(fields, expected.det_sizes, seen["dec"], place, entry)
            else:
                findings += _check_image(section.name, expected, wanted[section.name], seen[section.name], place, entry)
    except ValueError as error:
        return [*_check_sections(submission.sections), *findings, Finding("file", str(error))]
    for name, keys in wanted.items():
        if all(section.name != name for section in submission.sections):
            findings.append(Finding(name, "is missing; the file needs seg, cls and dec"))
            continue
        for key in keys or ():
            if key not in seen[name]:
                without_box = Finding(name, f"no box for image_id {key}", "warning")  # allowed, but worth a look
                findings.append(without_box if name == "dec" else Finding(name, f"no entry for {json.dumps(key)}"))
    return [*_check_sections(submission.sections), *findings]


def _check_sections(sections: list[Section]) -> Iterator[Finding]:
    names = [section.name for section in sections]
    for index, section in enumerate(sections):
        if section.name not in _FORMS:
            yield Finding(section.name, "unknown section; the scorer reads seg, cls and dec", "warning")
            continue
        if section.name in names[:index]:
            yield Finding(section.name, "stands in the file twice; readers keep only the last one")
        if section.form not in _FORMS[section.name]:
            yield Finding(section.name, "must be a list")
        elif section.form == "dict":
            yield Finding(section.name, "is one dict; the official scorer wants a list of one-key dicts", "warning")


def _check_image(
    section: str, expected: Expected, names: Collection[str] | None, seen: set[str], place: str, entry: Any
) -> Iterator[Finding]:
    """Checks an entry of seg or cls: a one-key dict, a known name, there once, with the right content."""
    if not isinstance(entry, dict) or len(entry) != 1:
        yield Finding(place, f"must be a dict with one key, the image's name; got {_brief(entry)}")
        return
    ((name, content),) = entry.items()
    place = _at(place, name)
    if names is not None and name not in names:
        yield Finding(place, "no such image in the test list")
    elif name in seen:
        yield Finding(place, "this image is there already")
    seen.add(name)
    if section == "seg":
        yield from _check_polygons(place, content, expected.seg_classes, (expected.seg_sizes or {}).get(name))
    elif type(content) is not int or not 0 <= content < expected.cls_classes:
        yield Finding(place, f"must be a whole number 0..{expected.cls_classes - 1}, got {_brief(content)}")


def _check_polygons(place: str, polygons: Any, classes: int, size: Size | None) -> Iterator[Finding]:
    if not isinstance(polygons, dict):
        yield Finding(place, f"must be a dict of polygons per class, got {_brief(polygons)}")
        return
    wanted = [str(index) for index in range(classes)]
    for key in wanted:
        if key not in polygons:
            yield Finding(place, f'class "{key}" is missing; an absent class is []')
    known = [key for key in polygons if key in wanted]
    if known != sorted(known, key=int):
        yield Finding(place, "classes are not in rising order; the scorer paints them in the file's order", "warning")
    for key, contours in polygons.items():
        where = _at(place, key)
        if key not in wanted:
            yield Finding(where, f'unknown class; classes are "0" to "{wanted[-1]}"')
        if not isinstance(contours, list):
            yield Finding(where, f"must be a list of contours, got {_brief(contours)}")
            continue
        for index, contour in enumerate(contours):
            yield from _check_contour(_at(where, index), contour, size)


def _check_contour(place: str, contour: Any, size: Size | None) -> Iterator[Finding]:
    if not isinstance(contour, list):
        yield Finding(place, f"must be a list of points, got {_brief(contour)}")
        return
    if len(contour) < 3:
        yield Finding(place, f"has {len(contour)} points; the scorer skips contours below 3: repeat a point", "warning")
        return
    try:  # numpy first: where it sees an integer array, nothing else needs to walk the points
        points = np.array(contour)
    except (ValueError, OverflowError):  # ragged, or beyond 64 bits
        points = np.zeros(0)
    if points.dtype != np.int64 or points.shape[1:] != (2,):
        for index, point in enumerate(contour):
            pair = isinstance(point, list) and len(point) == 2
            if not pair or not all(type(value) is int and 0 <= value < 2**31 for value in point):
                yield Finding(_at(place, index), f"must be [x, y] in whole pixels, got {_brief(point)}")
    elif size is not None:
        for index in np.flatnonzero(((points < 0) | (points >= size[::-1])).any(axis=1)).tolist():
            yield Finding(_at(place, index), f"lies outside {_limit(size)}: {_brief(contour[index])}")


def _fields(expected: Expected) -> _Fields:
    """{key of a row in dec: (what its value must be, whether a value is that)}."""
    ids, lines = expected.category_ids, len(expected.det_sizes) if expected.det_sizes else None
    return {
        "image_id": (
            f"a line of test.txt, counted from 1{f' to {lines}' if lines else ''}",
            lambda value: type(value) is int and 1 <= value <= (lines or value),
        ),
        "category_id": (
            f"one of {min(ids)}..{max(ids)} in val.json" if ids else "a whole number",
            lambda value: type(value) is int and (ids is None or value in ids),
        ),
        "bbox": (
            "four numbers, [x, y, width, height]",
            lambda value: isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)),
        ),
        "score": ("a number 0..1", lambda value: _is_number(value) and 0 <= value <= 1),
    }


def _check_row(
    fields: _Fields, sizes: Sequence[Size] | None, seen: set[int], place: str, row: Any
) -> Iterator[Finding]:
    if not isinstance(row, dict):
        yield Finding(place, f"must be a dict with the keys {', '.join(fields)}; got {_brief(row)}")
        return
    for key in row:
        if key not in fields:
            yield Finding(_at(place, key), "the scorer does not read it", "warning")
    sound = {key for key, (_, holds) in fields.items() if key in row and holds(row[key])}
    for key in fields:
        if key not in sound:
            got = _brief(row[key]) if key in row else "nothing"
            yield Finding(_at(place, key), f"must be {fields[key][0]}; got {got}")
    size = None
    if "image_id" in sound and sizes:
        seen.add(row["image_id"])
        size = sizes[row["image_id"] - 1]
    if "bbox" in sound:
        yield from _check_box(_at(place, "bbox"), row["bbox"], size)


def _check_box(place: str, box: list[float], size: Size | None) -> Iterator[Finding]:
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield Finding(place, f"width and height must be above 0, got {_brief(box)}; is it x1 y1 x2 y2?")
    elif size is not None:
        if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
            yield Finding(place, f"lies outside {_limit(size)}: {_brief(box)}")
        elif min(x, y) < -_SLACK or x + width > size[1] + _SLACK or y + height > size[0] + _SLACK:
            yield Finding(place, f"reaches beyond {_limit(size)}: {_brief(box)}", "warning")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _at(place: str, key: object) -> str:
    return f"{place}[{json.dumps(key)}]"


def _limit(size: Size) -> str:
    return f"the image (width {size[1]}, height {size[0]})"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
