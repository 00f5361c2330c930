"""Finds everything wrong with a submission file, each finding with its place in the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Interval, Len
from pydantic import BaseModel, StrictFloat, StrictInt, TypeAdapter, ValidationError

from ppmtl.challenge.expected import Expected
from ppmtl.challenge.reading import SubmissionFile
from ppmtl.data.findings import Finding
from ppmtl.structures import Size

_SLACK = 0.01  # pixels: what float32 and rounding may add to a box that ends at the border


def check(file: str | Path, expected: Expected) -> list[Finding]:
    """All findings: schema, coverage, names, ids, boxes, scores, polygons; [] for a sound file.

    Both forms of seg and cls are read; the dict form is a warning.

    Raises:
        ValueError: there is no such file. (Broken JSON is a finding.)
    """
    submission = SubmissionFile(Path(file))
    if not submission.path.is_file():
        raise ValueError(f"{submission.path}: no such file")
    checkers: dict[str, _Named | _Boxes] = {
        "seg": _Named("seg", expected.seg_sizes, partial(_check_polygons, expected)),
        "cls": _Named("cls", expected.cls_names, partial(_check_label, expected.cls_classes)),
        "dec": _Boxes(expected),
    }
    findings: list[Finding] = []
    try:
        for section, place, entry in submission:
            if section.name in checkers and section.form in checkers[section.name].forms:
                findings.extend(checkers[section.name].entry(place, entry))
    except ValueError as error:
        return [*_check_sections(submission, checkers), *findings, Finding("file", str(error))]
    names = {section.name for section in submission.sections}
    for name, checker in checkers.items():
        if name in names:
            findings.extend(checker.coverage())
        else:
            findings.append(Finding(name, "is missing; the file needs seg, cls and dec"))
    return [*_check_sections(submission, checkers), *findings]


def _check_sections(submission: SubmissionFile, checkers: Mapping[str, _Named | _Boxes]) -> Iterator[Finding]:
    seen = set()
    for section in submission.sections:
        name = section.name
        if name not in checkers:
            yield Finding(name, "unknown section; the scorer reads seg, cls and dec", "warning")
            continue
        if name in seen:
            yield Finding(name, "stands in the file twice; readers keep only the last one")
        seen.add(name)
        if section.form not in checkers[name].forms:
            yield Finding(name, "must be a list")
        elif section.form == "dict":
            yield Finding(name, "is one dict; the official scorer wants a list of one-key dicts", "warning")


class _Named:
    """Checks seg or cls: one-key dicts, known names, each once, all of them; ``content`` checks what a name has."""

    forms = ("list", "dict")

    def __init__(
        self, section: str, names: Collection[str] | None, content: Callable[[str, str, Any], Iterator[Finding]]
    ) -> None:
        self._section, self._content, self._seen = section, content, set[str]()
        self._names = None if names is None else dict.fromkeys(names)

    def entry(self, place: str, entry: Any) -> Iterator[Finding]:
        if not isinstance(entry, dict) or len(entry) != 1:
            yield Finding(place, f"must be a dict with one key, the image's name; got {_brief(entry)}")
            return
        ((name, content),) = entry.items()
        place = f"{place}[{json.dumps(name)}]"
        if self._names is not None and name not in self._names:
            yield Finding(place, "no such image in the test list")
        elif name in self._seen:
            yield Finding(place, "this image is there already")
        self._seen.add(name)
        yield from self._content(place, name, content)

    def coverage(self) -> Iterator[Finding]:
        for name in self._names or ():
            if name not in self._seen:
                yield Finding(self._section, f"no entry for {json.dumps(name)}")


def _check_label(classes: int, place: str, _: str, label: Any) -> Iterator[Finding]:
    if type(label) is not int or not 0 <= label < classes:
        yield Finding(place, f"must be a whole number 0..{classes - 1}, got {_brief(label)}")


def _check_polygons(expected: Expected, place: str, name: str, polygons: Any) -> Iterator[Finding]:
    if not isinstance(polygons, dict):
        yield Finding(place, f"must be a dict of polygons per class, got {_brief(polygons)}")
        return
    wanted = [str(index) for index in range(expected.seg_classes)]
    for key in wanted:
        if key not in polygons:
            yield Finding(place, f'class "{key}" is missing; an absent class is []')
    known = [key for key in polygons if key in wanted]
    if known != sorted(known, key=int):
        yield Finding(place, "classes are not in rising order; the scorer paints them in the file's order", "warning")
    size = (expected.seg_sizes or {}).get(name)
    for key, contours in polygons.items():
        where = f"{place}[{json.dumps(key)}]"
        if key not in wanted:
            yield Finding(where, f'unknown class; classes are "0" to "{wanted[-1]}"')
        if not isinstance(contours, list):
            yield Finding(where, f"must be a list of contours, got {_brief(contours)}")
            continue
        for index, contour in enumerate(contours):
            yield from _check_contour(f"{where}[{index}]", contour, size)


_Pixel = Annotated[StrictInt, Interval(ge=0, lt=2**31)]
_CONTOUR = TypeAdapter(list[Annotated[list[_Pixel], Len(2, 2)]])


def _check_contour(place: str, contour: Any, size: Size | None) -> Iterator[Finding]:
    if isinstance(contour, list) and len(contour) < 3:
        yield Finding(place, f"has {len(contour)} points; the scorer skips contours below 3: repeat a point", "warning")
        return
    try:  # numpy first: where it sees an integer array, nothing else needs to walk the points
        points = np.array(contour)
    except (ValueError, OverflowError):  # ragged, or beyond 64 bits
        points = np.zeros(0)
    if points.dtype != np.int64 or points.shape[1:] != (2,):
        yield from _check_types(_CONTOUR.validate_python, place, contour)
    elif size is not None:
        for index in np.flatnonzero(((points < 0) | (points >= size[::-1])).any(axis=1)):
            yield Finding(f"{place}[{index}]", f"lies outside {_limit(size)}: {_brief(contour[index])}")


class _Row(BaseModel, extra="forbid"):
    """One box; a key that the scorer does not read is a warning."""

    image_id: Annotated[StrictInt, Ge(1)]
    category_id: StrictInt
    bbox: Annotated[list[StrictFloat], Len(4, 4)]
    score: Annotated[StrictFloat, Interval(ge=0, le=1)]


class _Boxes:
    """Checks dec: rows of boxes."""

    forms = ("list",)

    def __init__(self, expected: Expected) -> None:
        self._sizes, self._categories, self._seen = expected.det_sizes, expected.category_ids, set[int]()

    def entry(self, place: str, row: Any) -> Iterator[Finding]:
        wrong = list(_check_types(_Row.model_validate, place, row))
        yield from wrong
        if not isinstance(row, dict):
            return
        # what has the right type is looked at, also beside something that has not
        sound = {key for key in _Row.model_fields if not any(f.place.startswith(f'{place}["{key}"]') for f in wrong)}
        size = None
        if "image_id" in sound and self._sizes is not None:
            if row["image_id"] <= len(self._sizes):
                size = self._sizes[row["image_id"] - 1]
                self._seen.add(row["image_id"])
            else:
                limit = f"a line of test.txt, 1..{len(self._sizes)}"
                yield Finding(f'{place}["image_id"]', f"must be {limit}; got {row['image_id']}")
        if "category_id" in sound and self._categories is not None and row["category_id"] not in self._categories:
            limit = f"one of {min(self._categories)}..{max(self._categories)} in val.json"
            yield Finding(f'{place}["category_id"]', f"must be {limit}, got {row['category_id']}")
        if "bbox" in sound:
            yield from _check_box(f'{place}["bbox"]', row["bbox"], size)

    def coverage(self) -> Iterator[Finding]:
        for image_id in range(1, len(self._sizes or ()) + 1):
            if image_id not in self._seen:  # allowed, but worth a look
                yield Finding("dec", f"no box for image_id {image_id}", "warning")


def _check_box(place: str, box: list[float], size: Size | None) -> Iterator[Finding]:
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield Finding(place, f"width and height must be above 0, got {_brief(box)}; is it x1 y1 x2 y2?")
    elif size is not None:
        if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
            yield Finding(place, f"lies outside {_limit(size)}: {_brief(box)}")
        elif min(x, y) < -_SLACK or x + width > size[1] + _SLACK or y + height > size[0] + _SLACK:
            yield Finding(place, f"reaches beyond {_limit(size)}: {_brief(box)}", "warning")


def _check_types(validate: Callable[[Any], object], place: str, value: Any) -> Iterator[Finding]:
    """What pydantic says about a value, each at its place."""
    try:
        validate(value)
    except ValidationError as error:
        for wrong in error.errors(include_url=False):
            where = place + "".join(f"[{json.dumps(key)}]" for key in wrong["loc"])
            extra = wrong["type"] == "extra_forbidden"
            problem = "the scorer does not read it" if extra else f"{wrong['msg']}, got {_brief(wrong['input'])}"
            yield Finding(where, problem, "warning" if extra else "error")


def _limit(size: Size) -> str:
    return f"the image (width {size[1]}, height {size[0]})"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
