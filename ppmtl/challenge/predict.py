"""Predicts the challenge's test lists into a submission file; goes on where an interrupted run stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppmtl.challenge import SubmissionWriter
from ppmtl.challenge.expected import TEST_FOLDER, detection_names
from ppmtl.challenge.writing import TaskName
from ppmtl.data.images import find_images, read_image
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.predict.processes import Processes
from ppmtl.structures import ClassProbs, Detections, Prediction, SegMap
from ppmtl.tasks.base import Task

_SECTION: dict[str, TaskName] = {"segmentation": "seg", "classification": "cls", "detection": "det"}


def open_writer(path: Path, processes: Processes, **options: Any) -> SubmissionWriter:
    """Returns this process's writer; all processes have to open theirs.

    Args:
        path: the JSON file to be; with several machines in a folder that all of them share.
        processes: those that share the pictures.
        options: of :class:`SubmissionWriter`.
    """
    first = SubmissionWriter(path, part=0, **options) if processes.rank == 0 else None
    processes.exchange(None)  # the first has mended what an interruption left
    writer = first or SubmissionWriter(path, part=processes.rank, **options)
    processes.exchange(None)  # all have read what is done; from here on the parts grow
    return writer


def predict_test_set(
    root: Path,
    tasks: Mapping[str, Task],
    backend: Backend,
    writer: SubmissionWriter,
    *,
    augment: bool,
    processes: Processes = Processes(),  # noqa: B008  (frozen)
) -> dict[str, int]:
    """Returns {task: pictures predicted now, by all}; pictures that the writer already has are not computed again.

    Args:
        root: the data root; the lists are under ``root``/track1_test_data.
        tasks: {name: task}, at most one of each type.
        backend: what runs the network.
        writer: open; not finished here. When this returns, all processes have added their pictures.
        augment: test-time augmentation.
        processes: those that share the pictures.

    Raises:
        ValueError: a list or picture is missing or unreadable, or a task type occurs twice.
    """
    test = root / TEST_FOLDER
    counts = {}
    types = [task.task_type for task in tasks.values()]
    if len(set(types)) != len(types):
        raise ValueError(f"a submission has one answer per kind of task, the config has {', '.join(types)}")
    for name, task in tasks.items():
        section = _SECTION[task.task_type]
        pictures = _pictures(test, section)
        writer.expect(section, list(pictures))
        done = writer.done(section)
        todo = {key: path for key, path in pictures.items() if key not in done}
        pipeline = Pipeline({name: task}, backend, augment=augment)
        hidden = processes.rank != 0 or not sys.stderr.isatty()
        bar = tqdm(total=len(pictures), initial=len(pictures) - len(todo), desc=f"submit {name}", unit="img",
                   disable=hidden)  # fmt: skip
        for key, path in list(todo.items())[processes.rank :: processes.count]:
            prediction = pipeline.predict([read_image(path)], [str(path)])[0][name]
            _adder(writer, task)(key, prediction)
            bar.update(processes.count)
        bar.close()
        counts[name] = len(todo)
    processes.exchange(None)
    return counts


def _pictures(test: Path, section: str) -> dict[str | int, Path]:
    """Returns {what the writer calls the picture: file}; detection counts the lines of test.txt from 1."""
    if section == "det":
        names = detection_names(test / "dec" / "test.txt")
        return {line: test / "dec" / "test" / name for line, name in enumerate(names, 1)}
    folder = test / "seg" / "images" / "test" if section == "seg" else test / "cls" / "test"
    return {path.name: path for path in find_images(folder)}


def _adder(writer: SubmissionWriter, task: Task) -> Callable[[str | int, Prediction], None]:
    def add(key: str | int, prediction: Prediction) -> None:
        if isinstance(prediction, SegMap):
            writer.add_segmentation(str(key), prediction)
        elif isinstance(prediction, ClassProbs):
            writer.add_classification(str(key), prediction)
        else:
            assert isinstance(prediction, Detections)
            writer.add_detection(int(key), prediction, task.classes)

    return add
