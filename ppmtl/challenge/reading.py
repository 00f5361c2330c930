"""Reads a submission file entry by entry: parsed at once, a real one (hundreds of MB) would need gigabytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

_CHUNK = 1 << 16  # bytes


class SubmissionFile:
    """A submission file; iterate over it, once, for (section, place in the file, entry).

    In the list form an entry is as it stands: ``{"a.png": {...}}``. The dict form's entries come the same way, as one-key
    dicts. A section that is neither has one entry, its value. ``sections`` are those that began so far, in the file's
    order; a name may stand there twice.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.sections = path, list[Section]()

    def __iter__(self) -> Iterator[tuple[Section, str, Any]]:
        """Yields the entries.

        Raises:
            ValueError: the file is not a JSON object; the message names the place. What stands before it was yielded.
        """
        maps = iter([_Sections(self.sections)])  # the first map that begins is the file's own
        parser = ijson.items_coro(
            ijson.sendable_list(), "", map_type=lambda: next(maps, None) or _Map(), use_float=True
        )
        with self.path.open("rb") as file:
            chunk = file.read(_CHUNK)
            if chunk.lstrip()[:1] != b"{":
                raise ValueError(f"{self.path}: must be a JSON object with the keys seg, cls and dec; it is none")
            try:
                while chunk:
                    gc.disable()  # new lists by the thousand and no cycle: collecting would add a third to the time
                    try:
                        parser.send(chunk)
                    finally:
                        gc.enable()
                    yield from self._finished()
                    chunk = file.read(_CHUNK)
                parser.close()
            except ijson.JSONError as error:
                yield from self._finished()
                raise ValueError(self._broken(error)) from error
        yield from self._finished(ended=True)

    def _finished(self, *, ended: bool = False) -> Iterator[tuple[Section, str, Any]]:
        """Takes the entries that the parser has finished: all but the last one of the last section."""
        for section in self.sections:
            for place, entry in section.take(finished=ended or section is not self.sections[-1]):
                yield section, place, entry

    def _broken(self, error: Exception) -> str:
        lines = [line.strip() for line in str(error).splitlines()]  # what is wrong; the text around it; an arrow
        place = self.sections[-1].place() if self.sections else "its beginning"
        return (
            f"{self.path}: is not valid JSON from {place} on ({' '.join(lines[:2])}); it may be cut off: write it again"
        )


class Section:
    """One section while the parser fills it; ``form`` ("list", "dict" or "other") is what the file has there."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.form = "list" if isinstance(value, list) else "dict" if isinstance(value, _Map) else "other"
        self._value, self._taken = [value] if self.form == "other" else value, 0

    def place(self) -> str:
        """Where in the file the next entry stands."""
        return f"{self.name}[{self._taken}]" if self.form == "list" else self.name

    def take(self, *, finished: bool) -> Iterator[tuple[str, Any]]:
        """Removes and yields the (place, entry) pairs that are complete; without ``finished`` the last one is not."""
        stop = len(self._value) if finished else max(0, len(self._value) - 1)
        if isinstance(self._value, _Map):
            entries = [*self._value.replaced, *({key: self._value.pop(key)} for key in list(self._value)[:stop])]
            self._value.replaced.clear()
        else:
            entries = self._value[:stop]
            del self._value[:stop]
        for entry in entries:
            yield self.place(), entry
            self._taken += 1


class _Sections:
    """The file's own object: it gets each section's value when that begins, as an empty list or map to be filled."""

    def __init__(self, sections: list[Section]) -> None:
        self._sections = sections

    def __setitem__(self, name: str, value: Any) -> None:
        self._sections.append(Section(name, value))


class _Map(dict[str, Any]):
    """An object inside the file, which also keeps what a repeated key would overwrite."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[dict[str, Any]] = []

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self.replaced.append({key: self.pop(key)})  # so that the new one comes last: it is being filled
        super().__setitem__(key, value)
