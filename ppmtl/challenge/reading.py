"""Reads a submission file entry by entry: parsed as a whole, a real one (hundreds of MB) would need gigabytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ppmtl.data.listing import read_text

Form = Literal["list", "dict", "other"]
Entries = Iterator[tuple[str, Any]]

_SPACE = re.compile(r"[ \t\r\n]*")


def sections(path: Path) -> Iterator[tuple[str, Form, Entries]]:
    """Yields (name, form, entries) of each section; entries are (place in the file, value).

    In the list form an entry's value is as it stands: ``{"a.png": {...}}``. The dict form's entries come the same way,
    as one-key dicts. A section that is neither has one entry, its value. Consume the entries before the next section.

    Raises:
        ValueError: the file cannot be read or is not a JSON object (while iterating; the message names the place).
    """
    text = _Text(path, read_text(path))
    if text.next_character() != "{":
        raise ValueError(f"{path}: must be a JSON object with the keys seg, cls and dec; it is none")
    for name in text.object_keys():
        form: Form = {"[": "list", "{": "dict"}.get(text.next_character(), "other")  # type: ignore[assignment]
        entries = _entries(text, name, form)
        yield name, form, entries
        for _ in entries:  # what the caller left
            pass
    text.end()


def _entries(text: _Text, section: str, form: Form) -> Entries:
    if form == "list":
        for index in text.array_items():
            yield f"{section}[{index}]", text.value()
    elif form == "dict":
        for key in text.object_keys():
            yield section, {key: text.value()}
    else:
        yield section, text.value()


class _Text:
    """A position in JSON text."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text, self._at, self._decoder = path, text, 0, json.JSONDecoder()

    def next_character(self) -> str:
        """Returns the next character that is no space, "" at the end."""
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        self._at = space.end()
        return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """Returns the JSON value at the position and passes it."""
        self.next_character()
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            raise self._broken(error) from error
        return value

    def object_keys(self) -> Iterator[str]:
        """Yields the keys of the object at the position; the caller consumes each key's value."""
        self._take("{")
        if self.next_character() == "}":
            self._take("}")
            return
        while True:
            if self.next_character() != '"':
                raise self._broken("Expecting a key in double quotes")
            key = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def array_items(self) -> Iterator[int]:
        """Yields the index of each item of the array at the position; the caller consumes the item."""
        self._take("[")
        if self.next_character() == "]":
            self._take("]")
            return
        index = 0
        while True:
            yield index
            index += 1
            if self._take(",]") == "]":
                return

    def end(self) -> None:
        """Raises ValueError unless only space is left."""
        if self.next_character():
            raise self._broken("Extra data")

    def _take(self, allowed: str) -> str:
        found = self.next_character()
        if not found or found not in allowed:
            raise self._broken(f"Expecting one of {' '.join(allowed)}")
        self._at += 1
        return found

    def _broken(self, problem: str | json.JSONDecodeError) -> ValueError:
        if isinstance(problem, str):
            problem = json.JSONDecodeError(problem, self._text, self._at)
        return ValueError(f"{self._path}: is not valid JSON ({problem}); it may be cut off: write it again")
