"""Every key explains itself: meaning, unit, default, allowed values, from the code that takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from ppmtl.config import Part
from ppmtl.config.keys import Key, keys_of, matches
from ppmtl.config.meanings import meanings, section, unit_of
from ppmtl.config.parameters import REQUIRED
from ppmtl.config.settings import Settings

KEYS = list(keys_of(Settings))


@dataclass
class Small:
    """Settings.

    Attributes:
        first, second: both [px] of it,
            on two lines.
    """

    first: int
    second: int = 2
    third: float = 0.5  # behind [share]
    # above
    # it
    fourth: str = "x"
    head: Annotated[Callable[..., Any], Part("toyparts.heads")] | None = None
    sizes: dict[str, tuple[Annotated[int, Ge(1)], ...]] | None = None


def test_every_key_of_the_project_has_a_meaning() -> None:
    assert len(KEYS) > 150
    assert [f"{key.path} ({key.of}): write it in the docstring's Args" for key in KEYS if not key.meaning] == []


def test_every_number_of_the_project_has_a_unit() -> None:
    numbers = [key for key in KEYS if key.is_number]
    assert len(numbers) > 90
    fix = 'say it in the meaning, in square brackets: "[px]", "[share]", "[factor]", "[no unit]"'
    assert [f"{key.path} ({key.of}): {fix}" for key in numbers if not key.unit] == []


def test_meanings_come_from_docstrings_and_comments_and_a_name_pair_shares_one() -> None:
    both = "both [px] of it, on two lines."
    assert meanings(Small) == {"first": both, "second": both, "third": "behind [share]", "fourth": "above it"}


def test_a_base_class_explains_the_keys_that_it_gives() -> None:
    class Child(Small):
        """Child.

        Args:
            second: own.
        """

    assert meanings(Child)["second"] == "own."
    assert meanings(Child)["first"].startswith("both")


def test_a_section_of_a_docstring_ends_where_the_next_begins() -> None:
    doc = "Line.\n\nArgs:\n    a: one\n        more\n\nReturns:\n    b: no\n"
    assert section(doc, ("Args:",)) == {"a": "one more"}


@pytest.mark.parametrize(
    ("meaning", "unit"),
    [("(height, width) [px] of it", "px"), ("of RGB [0 to 1]", "0 to 1"), ("drawn from [-hue, hue]", ""),
     ("less than `partial[1]`", ""),
     ("from [1 - brightness, 1 + brightness]", ""), ("[min, max]", ""), ("[steps or epochs]", "steps or epochs")],
)  # fmt: skip
def test_a_unit_is_words_in_square_brackets_and_an_interval_is_none(meaning: str, unit: str) -> None:
    assert unit_of(meaning) == unit


def test_keys_of_parts_stand_below_their_place_and_a_part_that_may_hold_itself_ends(toyparts: Path) -> None:
    (toyparts / "toyparts/heads/broken.py").unlink()
    found = {f"{key.path} {key.of}".strip(): key for key in keys_of(Small)}
    assert list(found) == ["first", "second", "third", "fourth", "head", "head.bias linear", "head.channels upernet",
                           "head.dropout upernet", "head.aux upernet", "sizes"]  # fmt: skip
    assert found["first"].default is REQUIRED
    assert found["head"].allowed() == "a part: csp_pan, linear, upernet, or null"
    assert found["head.channels upernet"].allowed() == "a whole number >= 1"
    assert found["third"].default_text() == "0.5"
    assert found["sizes"].is_number


@pytest.mark.parametrize(
    ("prefix", "fits"),
    [("train", True), ("train.e", True), ("train.epochs", True), ("train.x", False), ("tasks", False),
     ("train.epochs.x", False)],
)  # fmt: skip
def test_a_prefix_fits_beginnings_of_names(prefix: str, fits: bool) -> None:
    assert matches(Key("train.epochs", int, 1, ""), prefix) is fits


def test_a_name_of_the_config_fits_its_placeholder() -> None:
    assert matches(Key("tasks.<task>.tta.scales", int, 1, ""), "tasks.det.tta")
    assert not matches(Key("tasks.<task>.tta.scales", int, 1, ""), "tasks.det.classes")
