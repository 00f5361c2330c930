"""Writes a submission picture by picture.

An interrupted run goes on where it stopped, and the file appears only when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import numpy as np

from ppmtl.challenge.expected import SEG_CLASSES
from ppmtl.ops.polygons import encode
from ppmtl.structures import ClassList, ClassProbs, Detections, SegMap

_SECTIONS = {"seg": "seg", "cls": "cls", "det": "dec"}  # task -> key in the file, in the baseline's order
TaskName = Literal["seg", "cls", "det"]


class SubmissionWriter:
    """Collects predictions in ``<path>.parts/`` (one line per picture, flushed) and joins them into ``path``.

    Several processes may write one submission, each with its own ``part``: part 0 opens first and alone, since it mends
    what an interruption left; nobody adds before all have opened; part 0 calls finish() when all have added. The pictures
    of all parts, also of an earlier run with more or fewer processes, count as done, and the file has the same bytes.

    Args:
        path: the JSON file to be.
        fingerprint: what the predictions depend on, e.g. {"weights": digest, "config": digest, "data": digest}. Parts
            that were left by a run with another fingerprint are refused.
        form: "list" = lists of one-key dicts, what the official scorer reads; "dict" = as the challenge's README shows.
        max_boxes: per picture, the best by score. COCO counts 100 per picture and class.
        seg_classes: all of them are written for every picture.
        resume: False throws away the parts of an earlier run.
        part: number of this writer, if several processes write.

    Raises:
        ValueError: the parts belong to another run; the message says what differs.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: Mapping[str, object],
        form: Literal["list", "dict"] = "list",
        max_boxes: int = 100,
        seg_classes: int = SEG_CLASSES,
        resume: bool = True,
        part: int = 0,
    ) -> None:
        self.path, self.form, self.max_boxes, self.seg_classes = Path(path), form, max_boxes, seg_classes
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        if not resume and part == 0:
            shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(parents=True, exist_ok=True)
        _claim(self.parts, {**fingerprint, "max_boxes": max_boxes, "seg_classes": seg_classes})
        self._done: dict[str, set[str | int]] = {}
        self._order: dict[str, Sequence[str | int]] = {}
        self._files: dict[str, IO[bytes]] = {}
        for task in _SECTIONS:
            if part == 0:
                for left in self._part_files(task):
                    _cut_off_half_a_line(left)
            self._done[task] = {key for file in self._part_files(task) for key, _ in _places(file)}
            self._files[task] = (self.parts / (f"{task}.{part}.part" if part else f"{task}.part")).open("ab")

    def done(self, task: TaskName) -> frozenset[str | int]:
        """Returns the pictures that need no prediction any more: names as given, for "det" image ids."""
        return frozenset(self._done[task])

    def expect(self, task: TaskName, keys: Sequence[str | int]) -> None:
        """States the pictures that the section has and their order in it; else it has those added, as they came."""
        self._order[task] = keys

    def add_segmentation(self, image_name: str, prediction: SegMap) -> None:
        """Adds one label map; ``image_name`` is the picture's file name, the entry is named "<stem>.png"."""
        polygons = encode(prediction.labels, self.seg_classes)
        self._add("seg", image_name, f"{_json(Path(image_name).stem + '.png')}:{_json(polygons)}")

    def add_classification(self, image_name: str, prediction: ClassProbs) -> None:
        """Adds one picture's most probable class.

        Raises:
            ValueError: a probability is not finite.
        """
        if not np.isfinite(prediction.probs).all():
            raise ValueError(f"{image_name}: class probabilities must be finite, got {prediction.probs}")
        self._add("cls", image_name, f"{_json(Path(image_name).name)}:{int(prediction.probs.argmax())}")

    def add_detection(self, image_id: int, prediction: Detections, classes: ClassList) -> None:
        """Adds one picture's best boxes.

        Args:
            image_id: the picture's line in test.txt, counted from 1.
            prediction: labels are positions in ``classes``; boxes in original pixels.
            classes: ``ids`` are the category ids of the annotation files.

        Raises:
            ValueError: a box or score is not finite, or ``image_id`` is below 1.
        """
        if image_id < 1:
            raise ValueError(f"image_id is the line in test.txt counted from 1, got {image_id}")
        if not (np.isfinite(prediction.boxes).all() and np.isfinite(prediction.scores).all()):
            raise ValueError(f"image_id {image_id}: boxes and scores must be finite")
        best = np.argsort(-prediction.scores, kind="stable")[: self.max_boxes]
        xywh = np.array(prediction.boxes[best], np.float32)
        xywh[:, 2:] -= xywh[:, :2]
        scores = prediction.scores[best].astype(np.float32)
        rows = [
            _json(
                {
                    "image_id": image_id,
                    "category_id": classes.ids[label],
                    "bbox": [_short(v) for v in box],
                    "score": _short(score),
                }
            )
            for box, score, label in zip(xywh, scores, prediction.labels[best].tolist(), strict=True)
        ]
        self._add("det", image_id, ",".join(rows))

    def finish(self) -> Path:
        """Returns the path, after joining all parts into the file in one atomic step and removing them.

        Raises:
            ValueError: a picture that :meth:`expect` named was added by nobody.
        """
        self.close()
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        with temporary.open("wb") as file:
            for index, (task, section) in enumerate(_SECTIONS.items()):
                file.write(b"{" if index == 0 else b",")
                file.write(f'"{section}":'.encode())
                self._write_section(file, task)
            file.write(b"}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        _sync_folder(self.path.parent)
        shutil.rmtree(self.parts)
        return self.path

    def close(self) -> None:
        """Closes the parts; a later writer with the same fingerprint goes on from them."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> SubmissionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, task: str, key: str | int, text: str) -> None:
        if key in self._done[task]:
            raise ValueError(f"{task}: {key} was added already; skip the pictures in done({task!r})")
        self._files[task].write(f"{_json(key)}\t{text}\n".encode())
        self._files[task].flush()
        self._done[task].add(key)

    def _write_section(self, file: IO[bytes], task: str) -> None:
        """Copies the lines in order: one picture in memory at a time."""
        as_dict = self.form == "dict" and task != "det"
        wrapped = not as_dict and task != "det"
        file.write(b"{" if as_dict else b"[")
        separator = b""
        for text in self._texts(task):
            if text:  # a picture without boxes has no row
                file.write(separator + (b"{" + text + b"}" if wrapped else text))
                separator = b",\n"
        file.write(b"}" if as_dict else b"]")

    def _texts(self, task: str) -> Iterator[bytes]:
        """Yields the JSON text of each picture, in the order of the section."""
        parts = self._part_files(task)
        places = {key: (part, place) for part in parts for key, place in _places(part)}
        order = self._order.get(task, list(places))
        missing = [key for key in order if key not in places]
        if missing:
            raise ValueError(f"{self.parts}: {task} lacks {len(missing)} pictures, e.g. {missing[0]}; run again")
        with contextlib.ExitStack() as stack:
            files = {part: stack.enter_context(part.open("rb")) for part in parts}
            for part, place in (places[key] for key in order):
                files[part].seek(place)
                yield files[part].readline().partition(b"\t")[2].rstrip(b"\n")

    def _part_files(self, task: str) -> list[Path]:
        return sorted([*self.parts.glob(f"{task}.part"), *self.parts.glob(f"{task}.*.part")])


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _short(value: np.float32) -> float:
    """Returns the shortest decimal that is this float32: 0.1, not 0.10000000149011612."""
    return float(str(value))


def _claim(parts: Path, fingerprint: Mapping[str, object]) -> None:
    """Writes the fingerprint into new parts, or compares it with that of parts left by an earlier run."""
    file = parts / "fingerprint.json"
    ours = json.loads(json.dumps(fingerprint, sort_keys=True))
    if file.exists():
        theirs = json.loads(file.read_text(encoding="utf-8"))
        other = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if other:
            raise ValueError(
                f"{parts}: left by another run, with different {', '.join(other)}; to go on, use the same weights, "
                "config and data; to start anew, delete the folder"
            )
        return
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(ours, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(temporary, file)


def _places(part: Path) -> Iterator[tuple[str | int, int]]:
    """Yields (key, where its line begins) of each line."""
    place = 0
    with part.open("rb") as file:
        for line in file:
            try:
                yield json.loads(line.partition(b"\t")[0]), place
            except ValueError as error:
                raise ValueError(
                    f"{part}: is damaged ({error}); delete the folder {part.parent} and start anew"
                ) from error
            place += len(line)


def _cut_off_half_a_line(part: Path) -> None:
    """Cuts off a last line that an interruption left unfinished."""
    with part.open("rb+") as file:
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


def _sync_folder(folder: Path) -> None:
    """Makes the renaming itself survive a power cut, where the system lets folders be opened (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
