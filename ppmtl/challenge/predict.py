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
    sections = [task.section for task in tasks.values() if task.section]
    if not sections or len(set(sections)) != len(sections):
        raise ValueError(f"a submission has one task for each of seg, cls and det; the tasks answer {sections}")
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
            name: _predict(task, data_root / TEST_FOLDER, Pipeline({name: task}, backend, augment=augment),
                           writer, max_boxes, processes)
            for name, task in tasks.items() if task.section
        }  # fmt: skip
        processes.all_gather(None)  # all have added their images
        if processes.rank == 0:
            writer.finish()
    return counts


def _predict(
    task: Task[Any], test: Path, pipeline: Pipeline, writer: SubmissionWriter, max_boxes: int, processes: Processes
) -> int:
    """Adds this process's share of a test list; returns how many images were left, for all processes."""
    assert task.section is not None
    images = test_images(test, task.section)
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
