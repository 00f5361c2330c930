"""Class lists from text and COCO files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppmtl.data.classes import read_categories, read_class_file


def text(folder: Path, content: str, name: str = "classes.txt") -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_one_name_per_line_counts_from_zero(tmp_path: Path) -> None:
    classes = read_class_file(text(tmp_path, "\ufeffroad\r\n side walk \n\n车\n"))
    assert classes.names == ("road", "side walk", "车")
    assert classes.ids == (0, 1, 2)


def test_id_name_lines_are_sorted_by_id(tmp_path: Path) -> None:
    classes = read_class_file(text(tmp_path, "7 stop sign\n2 yield\n"))
    assert (classes.names, classes.ids) == (("yield", "stop sign"), (2, 7))


def test_the_ignore_label_is_not_a_class(tmp_path: Path) -> None:
    assert read_class_file(text(tmp_path, "0 road\n1 car\n255 ignore\n")).names == ("road", "car")
    assert read_class_file(text(tmp_path, "0 road\n255 yield\n")).ids == (0, 255)


def test_names_that_are_bare_numbers_stay_names(tmp_path: Path) -> None:
    assert read_class_file(text(tmp_path, "30\n50\n")).names == ("30", "50")


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("", "lists no classes"),
        ("255 ignore", "lists no classes"),
        ("a\nb\na\n", "class name.*\n.*a"),
        ("1 a\n1 b\n", "class id.*\n.*1"),
    ],
)
def test_unusable_class_files_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"classes\.txt: .*{complaint}"):
        read_class_file(text(tmp_path, content))


def test_categories_keep_their_gaps_and_order(tmp_path: Path) -> None:
    content = {"categories": [{"id": 9, "name": "b"}, {"id": 3, "name": "a"}]}
    classes = read_class_file(text(tmp_path, json.dumps(content), "c.json"))
    assert (classes.names, classes.ids) == (("b", "a"), (9, 3))


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("[]", "no 'categories'"),
        ('{"categories": [{"id": "1", "name": "a"}]}', "whole-number 'id'"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "class id"),
        ('{"categories": [', "not valid JSON"),
    ],
)
def test_unusable_category_files_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"c\.json: .*{complaint}"):
        read_categories(text(tmp_path, content, "c.json"))
