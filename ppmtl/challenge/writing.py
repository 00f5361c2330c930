"""Writes a submission image by image.

An interrupted run goes on where it stopped, and the file appears only when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from ppmtl.challenge.expected import SECTIONS
from ppmtl.files import atomic_write

Key = str | int


class SubmissionWriter:
    """Collects entries in ``<path>.parts/`` (one line per image, flushed) and joins them into ``path``.

    Several processes may write one submission, each with its own ``part``: part 0 opens first and alone, since it fixes
    what an interruption left; nobody adds before all have opened; part 0 calls finish() when all have added. The images
    of all parts, also of an earlier run with more or fewer processes, count as done, and the file has the same bytes.

    Args:
        path: the JSON file to be.
        fingerprint: what the entries depend on, e.g. {"weights": digest, "data_root": folder}, as JSON values. Parts
            that were left by a run with another fingerprint are refused.
        form: "list" = lists of one-key dicts, what the official scorer reads; "dict" = as the challenge's README shows.
        resume: False throws away the parts of an earlier run.
        part: number of this writer, if several processes write.

    Raises:
        ValueError: the parts belong to another run (the message says what differs), or are damaged.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: Mapping[str, object],
        form: Literal["list", "dict"] = "list",
        resume: bool = True,
        part: int = 0,
    ) -> None:
        self.path, self.form = path, form
        self.parts = path.with_name(f"{path.name}.parts")
        if not resume and part == 0:
            shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(parents=True, exist_ok=True)
        _claim(self.parts, fingerprint)
        for left in self.parts.glob("*.part") if part == 0 else ():
            with left.open("rb+") as file:  # the last line may be one that an interruption left unfinished
                file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
        self._done = {section: set(self._index(section)) for section in SECTIONS}
        self._order: dict[str, Sequence[Key]] = {}
        self._files = {section: (self.parts / f"{section}.{part}.part").open("ab") for section in SECTIONS}

    def left(self, section: str, keys: Sequence[Key]) -> list[Key]:
        """States the images that the section has and their order in it; returns those that no part had when this opened."""
        self._order[section] = keys
        return [key for key in keys if key not in self._done[section]]

    def add(self, section: str, key: Key, entry: Any) -> None:
        """Adds one image that was :meth:`left`. Of a section that nobody asked about all are written, as they came.

        Args:
            section: "seg", "cls" or "det".
            key: the image's file name; for "det" its line in test.txt, counted from 1.
            entry: what :meth:`ppmtl.tasks.base.Task.submission_entry` returned.
        """
        if section == "det":
            text = ",".join(_json({"image_id": key, **row}) for row in entry)
        else:
            name = f"{Path(str(key)).stem}.png" if section == "seg" else key
            text = f"{_json(name)}:{_json(entry)}"
        self._files[section].write(f"{_json(key)}\t{text}\n".encode())
        self._files[section].flush()

    def finish(self) -> None:
        """Joins all parts into the file in one atomic step and removes them.

        Raises:
            ValueError: an image that :meth:`left` was told of was added by nobody.
        """
        self.close()
        with atomic_write(self.path) as temporary, temporary.open("wb") as file:
            for index, (section, name) in enumerate(SECTIONS.items()):
                file.write((b"," if index else b"{") + f'"{name}":'.encode())
                self._write_section(file, section)
            file.write(b"}\n")
        shutil.rmtree(self.parts)

    def close(self) -> None:
        """Closes the parts; a later writer with the same fingerprint goes on from them."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> SubmissionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_section(self, file: IO[bytes], section: str) -> None:
        """Copies the lines in order: one image in memory at a time."""
        as_dict = self.form == "dict" and section != "det"
        before, after = (b"", b"") if as_dict or section == "det" else (b"{", b"}")
        file.write(b"{" if as_dict else b"[")
        separator = b""
        for text in self._texts(section):
            if text:  # an image without boxes has no row
                file.write(separator + before + text + after)
                separator = b",\n"
        file.write(b"}" if as_dict else b"]")

    def _texts(self, section: str) -> Iterator[bytes]:
        """Yields the JSON text of each image, in the order of the section."""
        places = self._index(section)
        order = self._order.get(section, list(places))
        missing = [key for key in order if key not in places]
        if missing:
            raise ValueError(f"{self.parts}: {section} lacks {len(missing)} images, e.g. {missing[0]}; run again")
        with contextlib.ExitStack() as stack:
            files = {part: stack.enter_context(part.open("rb")) for part in {part for part, _ in places.values()}}
            for part, place in (places[key] for key in order):
                files[part].seek(place)
                yield files[part].readline().partition(b"\t")[2].rstrip(b"\n")

    def _index(self, section: str) -> dict[Key, tuple[Path, int]]:
        """{image: (part, where its line begins)}."""
        index: dict[Key, tuple[Path, int]] = {}
        for part in sorted(self.parts.glob(f"{section}.*.part")):
            place = 0
            with part.open("rb") as file:
                for line in file:
                    try:
                        index[json.loads(line.partition(b"\t")[0])] = part, place
                    except ValueError as error:
                        raise ValueError(f"{part}: is damaged ({error}); delete {self.parts} and start anew") from error
                    place += len(line)
        return index


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _claim(parts: Path, ours: Mapping[str, object]) -> None:
    """Writes the fingerprint into new parts, or compares it with that of parts left by an earlier run."""
    file = parts / "fingerprint.json"
    if not file.exists():
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(ours, indent=1, sort_keys=True), encoding="utf-8")
        return
    theirs = json.loads(file.read_text(encoding="utf-8"))
    other = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if other:
        raise ValueError(
            f"{parts}: left by another run, with different {', '.join(other)}; to go on, use the same weights, config "
            "and data; to start anew, delete the folder"
        )
