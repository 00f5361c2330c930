"""Predicts the challenge's test lists into a submission file; goes on where an interrupted run stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from ppmtl.challenge.expected import SEG_CLASSES, TEST_FOLDER, test_images
from ppmtl.challenge.writing import SubmissionWriter
from ppmtl.data.images import read_image
from ppmtl.predict.evaluate import EvalSet
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.predict.processes import Processes
from ppmtl.tasks.base import Task


def write_submission(
    path: Path,
    data_root: Path,
    tasks: Mapping[str, Task[Any]],
    backend: Backend,
    *,
    weights: object,
    images: Mapping[str, Mapping[str | int, Path]] | None = None,
    augment: bool = False,
    form: Literal["list", "dict"] = "list",
    max_boxes: int = 100,
    resume: bool = True,
    processes: Processes = Processes(),  # noqa: B008  (frozen)
) -> dict[str, int]:
    """Predicts the images that an interrupted run left and writes the file on rank 0; all processes have to call it.

    Args:
        path: the JSON file to be; with several machines in a folder that all of them share.
        data_root: the test lists are under ``data_root``/track1_test_data.
        tasks, backend, augment: what predicts; tasks without a section in the submission are left out.
        images: {task: {key: image file}} in the place of the test lists, see :func:`evaluation_images`.
        weights: tells the weights apart, as a JSON value: a run does not go on from what other weights left.
        form, resume: see :class:`SubmissionWriter`.
        max_boxes: per image, the best by score.
        processes: those that share the images.

    Returns:
        {task: images predicted now, by all processes}.

    Raises:
        ValueError: a list or image is missing or unreadable, two tasks answer one section, or an interrupted run left
            parts with other settings.
    """
    _check_sections(tasks)
    fingerprint = {
        "weights": weights,
        "data_root": str(data_root.resolve()),
        "tasks": {name: repr({k: v for k, v in vars(task).items() if k != "classes"}) for name, task in tasks.items()},
        "tta": augment,
        "max_boxes": max_boxes,
        "seg_classes": next((len(task.classes) for task in tasks.values() if task.section == "seg"), SEG_CLASSES),
    }

    def opened() -> SubmissionWriter:
        return SubmissionWriter(path, fingerprint=fingerprint, form=form, resume=resume, part=processes.rank)

    first = opened() if processes.rank == 0 else None
    processes.all_gather(None)  # rank 0 has fixed what an interruption left
    with first or opened() as writer:
        processes.all_gather(None)  # all have read what is done; from here on the parts grow
        counts = {
            name: _predict(task, images[name] if images else test_images(data_root / TEST_FOLDER, task.section),
                           Pipeline({name: task}, backend, augment=augment), writer, max_boxes, processes)
            for name, task in tasks.items() if task.section
        }  # fmt: skip
        processes.all_gather(None)  # all have added their images
        if processes.rank == 0:
            writer.finish()
    return counts


def evaluation_images(tasks: Mapping[str, Task[Any]], sets: Mapping[str, EvalSet]) -> dict[str, dict[str | int, Path]]:
    """{task: {key: image file}} of evaluation sets, for data that have no test lists of the challenge.

    Keys are what the challenge's format calls images by: file names, for detection the ids in the annotation file.

    Raises:
        ValueError: if a task has no evaluation set, or two images would have one name.
    """
    _check_sections(tasks)
    found: dict[str, dict[str | int, Path]] = {}
    for name, task in tasks.items():
        if task.section is None:
            continue
        reader = next((of_set.reader for of_set in sets.values() if name in of_set.tasks), None)
        if reader is None:
            raise ValueError(f"eval.datasets: no set for task '{name}', whose images a submission could be about")
        images, taken = dict[str | int, Path](), dict[str, Path]()
        for index in range(len(reader)):
            path, number = Path(reader.path(index)), reader.image_id(index, name)
            if number is None:
                continue
            other = (
                path
                if task.section == "det"
                else taken.setdefault(path.stem if task.section == "seg" else path.name, path)
            )
            if other != path:
                raise ValueError(
                    f"{path} and {other}: the challenge's format calls images by their file names only, and these would have "
                    "one; tools/eval.py --save_predictions writes COCO results, CSV and label maps for any data set"
                )
            images[number if task.section == "det" else path.name] = path
        found[name] = images
    return found


def _check_sections(tasks: Mapping[str, Task[Any]]) -> None:
    """Raises ValueError if the challenge's format cannot hold the answers of these tasks."""
    of_section: dict[str, list[str]] = {}
    for name, task in tasks.items():
        of_section.setdefault(task.section or "", []).append(name)
    left_out = of_section.pop("", [])
    if not of_section:
        raise ValueError(
            f"a submission has one task for each of seg, cls and det; {', '.join(left_out)} is none of these. tools/infer.py "
            "and tools/eval.py --save_predictions write COCO results, CSV and label maps"
        )
    for section, names in of_section.items():
        if len(names) > 1:
            raise ValueError(
                f"a submission has one task for each of seg, cls and det; {', '.join(names)} all answer {section}: choose "
                "one with --tasks"
            )


def _predict(
    task: Task[Any],
    images: Mapping[str | int, Path],
    pipeline: Pipeline,
    writer: SubmissionWriter,
    max_boxes: int,
    processes: Processes,
) -> int:
    """Adds this process's share of a list of images; returns how many were left, for all processes."""
    assert task.section is not None
    todo = writer.left(task.section, list(images))
    with tqdm(total=len(images), initial=len(images) - len(todo), desc=f"submit {task.name}", unit="img",
              disable=processes.rank != 0 or not sys.stderr.isatty()) as bar:  # fmt: skip
        for key in todo[processes.rank :: processes.count]:
            path = images[key]
            prediction = pipeline.predict([read_image(path)], [str(path)])[0][task.name]
            try:
                writer.add(task.section, key, task.submission_entry(prediction, max_boxes=max_boxes))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            bar.update(processes.count)
    return len(todo)
