"""Predictions in result files, measured as if the network had just made them."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.label_maps import read_label_map
from ppmtl.data.reader import Reader
from ppmtl.predict.result_files import INFO, ImageNames
from ppmtl.tasks.base import Task


def stored_tasks(place: Path) -> tuple[list[str] | None, int | None]:
    """The tasks of what :class:`ResultFiles` wrote, or the one that a file is named after, and the ``limit`` it was made with.

    None = nothing says it.
    """
    folder = place.parent if place.is_file() else place
    info = _json(folder / INFO) if (folder / INFO).is_file() else {}
    tasks = [place.stem] if place.is_file() else list(info["images"]) if "images" in info else None
    return tasks, info.get("limit")


class StoredPredictions:
    """The predictions in a folder that :class:`ResultFiles` wrote, or in one file for one task.

    Args:
        place: <task>.json, <task>.csv and <task>/<image>.png lie in it; or the one file itself.
        tasks: those to be measured.

    Raises:
        ValueError: if the files of a task are not there.
    """

    def __init__(self, place: Path, tasks: Mapping[str, Task[Any]]) -> None:
        if not place.exists():
            raise ValueError(f"--predictions {place}: no such file or folder")
        if place.is_file() and len(tasks) != 1:
            raise ValueError(f"--predictions {place}: one file holds one task; say which: --tasks {next(iter(tasks))}")
        self._files = {name: place if place.is_file() else place / _file_name(task) for name, task in tasks.items()}
        if missing := [str(file) for file in self._files.values() if not file.exists()]:
            there = ", ".join(sorted(path.name for path in place.iterdir()))
            raise ValueError(
                f"--predictions: {', '.join(missing)} not found ({place} has {there}); --tasks leaves tasks out"
            )
        self._rows = {name: _grouped(file) for name, file in self._files.items() if file.is_file()}

    def of(self, reader: Reader, tasks: Mapping[str, Task[Any]]) -> StoredSet:
        """The predictions for a data set.

        Raises:
            ValueError: if they are for images that it does not have.
        """
        return StoredSet(reader, tasks, self._files, self._rows)


class StoredSet:
    """The stored predictions for the images of one data set; predicts as a ``Pipeline`` does."""

    def __init__(
        self,
        reader: Reader,
        tasks: Mapping[str, Task[Any]],
        files: Mapping[str, Path],
        rows: Mapping[str, Mapping[Any, Sequence[Mapping[str, Any]]]],
    ) -> None:
        self.tasks, self._files, self._rows = dict(tasks), files, rows
        paths = [reader.path(index) for index in range(len(reader))]
        self._names = ImageNames(paths)
        self._ids = {
            name: {path: reader.image_id(index, name) for index, path in enumerate(paths)} for name in self.tasks
        }
        for name in set(self.tasks) & set(rows):
            known = set(self._ids[name].values()) | set(self._names.file.values())
            if unknown := [image for image in rows[name] if image not in known]:
                raise ValueError(
                    f"{files[name]}: {len(unknown)} of its {len(rows[name])} images are not in the data set "
                    f"({reader.describe()}), the first is {unknown[0]!r}; are they predictions for another one?"
                )

    def predict(self, images: Sequence[np.ndarray], paths: Sequence[str]) -> list[dict[str, Any]]:
        """One {task: its prediction} per image, without tasks in whose data set the image is not."""
        return [
            {name: self._prediction(name, image, path) for name in self.tasks if self._ids[name][path] is not None}
            for image, path in zip(images, paths, strict=True)
        ]

    def _prediction(self, name: str, image: np.ndarray, path: str) -> Any:
        file, size = self._files[name], (image.shape[0], image.shape[1])
        if file.is_dir():
            stored: Any = read_label_map(file / self._names.png[path])
        else:
            rows = self._rows[name]
            stored = rows.get(self._ids[name][path]) or rows.get(self._names.file[path], [])
        try:
            return self.tasks[name].from_results(stored, size)
        except KeyError as error:
            raise ValueError(f"{file}: what it has for this image lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: {error}") from error


def _file_name(task: Task[Any]) -> str:
    """The file or folder that holds what a task found; what says it are the methods that the task has of its own."""
    kind = type(task)
    if kind.coco_results is not Task.coco_results:
        return f"{task.name}.json"
    return task.name if kind.mask is not Task.mask else f"{task.name}.csv"


def _grouped(file: Path) -> dict[Any, list[dict[str, Any]]]:
    """{image id, or file name in a CSV file: its rows}, in the file's order."""
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    if file.suffix.lower() == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows: Any = list(csv.DictReader(lines))
        key = "file_name"
    else:
        rows, key = _json(file), "image_id"
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get(key) is not None for row in rows):
        meant = file.name.replace("_coco.json", ".json")
        whole = (
            f"; this is a COCO data set, its results are {meant}"
            if isinstance(rows, dict) and "annotations" in rows
            else ""
        )
        raise ValueError(f"{file}: needs a list of rows, each with '{key}': COCO's results format{whole}")
    for row in rows:
        found[row[key]].append(row)
    return dict(found)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON file ({error}); was it cut off?") from error
