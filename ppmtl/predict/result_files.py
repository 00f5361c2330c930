"""What tasks found in files that other tools read: COCO results, whole COCO files, CSV, label PNGs."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppmtl.data.label_maps import write_label_map
from ppmtl.data.reader import Reader
from ppmtl.files import atomic_write, remove_folder, replace_folder
from ppmtl.predict.coco_results import coco_results
from ppmtl.predict.inputs import result_names
from ppmtl.predict.processes import Processes
from ppmtl.structures import Sample, Size
from ppmtl.tasks.base import Task

INFO = "info.json"


class _Entry(NamedTuple):
    """What is written about one image and task; ``results`` are rows as text, since a data set may have millions of them."""

    image_id: int
    file_name: str
    size: Size
    results: str | None
    shown: list[dict[str, Any]]
    answer: dict[str, Any]


class ImageNames:
    """What images are called in result files, from the folder that they share.

    Attributes:
        stem: {path: name without suffix, of what is written about the image}; no two are alike.
        file: {path: name of the image}.
        png: {path: name of its label map}.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        names = result_names([Path(path) for path in paths])
        self.stem = {path: names[Path(path)] for path in paths}
        self.file = {path: (stem.parent / Path(path).name).as_posix() for path, stem in self.stem.items()}
        self.png = {path: f"{stem.as_posix()}.png" for path, stem in self.stem.items()}


class ResultFiles:
    """Collects what tasks find in images and writes ``folder``, which appears when it is complete.

    <task>.json       COCO results: what pycocotools' ``loadRes`` takes; for tasks whose answers COCO has a form for
    <task>_coco.json  the same as a whole COCO file with images and categories, for CVAT and FiftyOne
    <task>.csv        a row per box, sentence or class (the five best)
    <task>/<image>.png  the label map: class numbers, with a palette
    info.json         thresholds, tasks, numbers of images, and what the caller says

    Args:
        folder: replaced if it is there.
        tasks: {name: task}.
        threshold: parts that score below it are left out, but for <task>.json.
        least: the same for <task>.json; 0 keeps what average precision needs.
        processes: those that share the images; all of them have to build one, :meth:`gather` and :meth:`write`.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Mapping[str, Task[Any]],
        *,
        threshold: float,
        least: float = 0.0,
        processes: Processes = Processes(),  # noqa: B008  (frozen)
    ) -> None:
        self._folder, self._tasks, self._processes = folder, dict(tasks), processes
        self._threshold, self._least = threshold, least
        self._staged = folder.with_name(f".{folder.name}.new")
        self._entries: dict[str, dict[int, _Entry]] = defaultdict(dict)
        if processes.rank == 0:
            remove_folder(self._staged)
            self._staged.mkdir(parents=True)
        processes.all_gather(None)

    def of(self, reader: Reader) -> Callable[[int, Sample, Mapping[str, Any]], None]:
        """A function that takes a position in a data set, its sample and {task: prediction}."""
        names = ImageNames([reader.path(index) for index in range(len(reader))])

        def add(index: int, sample: Sample, predictions: Mapping[str, Any]) -> None:
            for task, found in predictions.items():
                if (image_id := reader.image_id(index, task)) is not None:
                    self.add(index, image_id, sample.path, sample.size, {task: found}, names)

        return add

    def add(
        self, position: int, image_id: int, path: str, size: Size, predictions: Mapping[str, Any], names: ImageNames
    ) -> None:
        """Takes what was found in one image; ``position`` is its place in the files."""
        rows = coco_results(predictions, self._tasks, image_id, threshold=self._least)
        shown = rows
        if self._threshold != self._least:
            shown = coco_results(predictions, self._tasks, image_id, threshold=self._threshold)
        for name, found in predictions.items():
            task, mask = self._tasks[name], self._tasks[name].mask(found)
            if mask is not None:
                file = self._staged / name / names.png[path]
                file.parent.mkdir(parents=True, exist_ok=True)
                write_label_map(file, mask, list(task.legend().values()))
            text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows[name]) if name in rows else None
            answer = {} if mask is not None else task.to_json(found, threshold=self._threshold)
            entry = _Entry(image_id, names.file[path], size, text, shown.get(name, []), answer)
            self._entries[name][position] = entry

    def write(self, info: Mapping[str, Any]) -> None:
        """Brings together what all processes have and writes the files on rank 0; ``info`` goes into info.json."""
        for found in self._processes.all_gather(dict(self._entries)):
            for name, entries in found.items():
                self._entries[name] |= entries
        if self._processes.rank != 0:
            return
        counts = {}
        for name in self._tasks:
            entries = [self._entries[name][position] for position in sorted(self._entries[name])]
            counts[name] = len(entries)
            if any(entry.results is not None for entry in entries):
                self._write_coco(name, entries)
            if any(entry.answer for entry in entries):
                _write_csv(self._staged / f"{name}.csv", entries)
        thresholds = {"COCO results (<task>.json)": self._least, "everything else": self._threshold}
        _dump(self._staged / INFO, {"score_threshold": thresholds, "images": counts, **info})
        replace_folder(self._staged, self._folder)

    def _write_coco(self, name: str, entries: Sequence[_Entry]) -> None:
        texts = [entry.results for entry in entries if entry.results]
        with atomic_write(self._staged / f"{name}.json") as temporary:
            temporary.write_text("[" + ",\n".join(texts) + "]\n", encoding="utf-8")
        task, rows = self._tasks[name], [row for entry in entries for row in entry.shown]
        classes = zip(task.classes.ids, task.classes.names, strict=True)
        kinds = {"categories": [{"id": own, "name": title} for own, title in classes]} if task.names_classes else {}
        document = {
            "info": {"description": f"predictions of task {name}", "score_threshold": self._threshold},
            "images": [
                {"id": e.image_id, "file_name": e.file_name, "height": e.size[0], "width": e.size[1]} for e in entries
            ],
            **kinds,
            "annotations": [{"id": number, **row, **_area(row)} for number, row in enumerate(rows, 1)],
        }
        _dump(self._staged / f"{name}_coco.json", document)


def image_ids(paths: Sequence[Path]) -> list[int]:
    """COCO's numbers of image files: those that they are called (000000000139.jpg), where all are; else from 1."""
    if all(path.stem.isdecimal() for path in paths):
        numbers = [int(path.stem) for path in paths]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


def csv_rows(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What ``Task.to_json`` says of one image as flat rows: one per box or class, else one; masks are left out."""
    listed = [value for value in answer.values() if isinstance(value, list)]
    for row in listed[0] if len(listed) == 1 and len(answer) == 1 else [answer]:
        flat = {key: value for key, value in row.items() if key not in ("bbox", "segmentation")}
        yield flat | dict(zip(("x1", "y1", "x2", "y2"), row.get("bbox", ()), strict=False))


def _area(row: Mapping[str, Any]) -> dict[str, Any]:
    """What an annotation has that a result has not; nothing for a sentence."""
    return {"area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0} if "bbox" in row else {}


def _write_csv(path: Path, entries: Sequence[_Entry]) -> None:
    rows = [{"file_name": entry.file_name, **row} for entry in entries for row in csv_rows(entry.answer)]
    heads = list(dict.fromkeys(key for row in rows for key in row)) or ["file_name"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, heads)
        writer.writeheader()
        writer.writerows(rows)


def _dump(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
