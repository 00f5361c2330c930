"""Writes demo data in the challenge's tree and formats, byte for byte the same for a seed, whatever the workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo_data import request as requests
from demo_data.bodies import vehicle_classes
from demo_data.captions import coco_captions, describe
from demo_data.classes import SEG_CLASSES
from demo_data.objects import SeenObject, coco_instances
from demo_data.portrait import render_vehicle
from demo_data.preview import write_preview
from demo_data.request import DemoRequest
from demo_data.roadsigns import render_signs
from demo_data.scene import render_street
from demo_data.signs import sign_names

TASKS = ("seg", "det", "cls")
_JPEG_QUALITY = 92
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        already_there: whether the directory held this very data, so that nothing was drawn.
        images: {task: {split: pictures}}.
        classes: {task: {split: {class name: pictures with it (seg, cls) or boxes of it (det)}}}.
        empty: {split: pictures without any sign}.
    """

    already_there: bool
    images: dict[str, dict[str, int]]
    classes: dict[str, dict[str, dict[str, int]]]
    empty: dict[str, int]


@dataclass(frozen=True)
class _Job:
    task: str
    split: str
    index: int
    label: int  # class of the vehicle, or of the first sign; not used for street scenes


@dataclass(frozen=True)
class _Drawn:
    """What the lists need to know of one picture: its size, its class ids, for signs their boxes (xywh), for streets more."""

    size: tuple[int, int]
    labels: list[int]
    boxes: list[list[float]]
    objects: list[SeenObject] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def make_dataset(
    out: Path,
    request: DemoRequest,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Draws and writes a whole data set and returns what it holds; a quick no-op when it is there already.

    Args:
        out: the directory, made where needed.
        request: what to draw.
        workers: processes; the bytes do not depend on it.
        overwrite: whether earlier demo data may be replaced.
        progress: called with (pictures done, pictures in all).

    Raises:
        ValueError: if ``out`` holds something else, or ``workers`` < 1.
        OSError: if a file cannot be written.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if requests.prepare(out, request, overwrite=overwrite):
        stored = json.loads((out / requests.MARKER).read_text(encoding="utf-8"))["summary"]
        return Summary(already_there=True, **stored)
    for folder in _folders():
        (out / folder).mkdir(parents=True)
    jobs = [job for task in TASKS for split in requests.SPLITS for job in _jobs(request, task, split)]
    drawn: dict[tuple[str, str], list[_Drawn]] = {}
    for done, (job, result) in enumerate(zip(jobs, _run(partial(_draw, request, out), jobs, workers), strict=True), 1):
        drawn.setdefault((job.task, job.split), []).append(result)
        if progress:
            progress(done, len(jobs))
    _write_lists(out, request, drawn)
    summary = _summarise(request, drawn)
    write_preview(out, sign_names(request.sign_classes), [c.body for c in vehicle_classes(request.vehicle_classes)])
    requests.finish(out, request, {key: getattr(summary, key) for key in ("images", "classes", "empty")})
    return summary


def _folder(task: str, split: str) -> Path:
    if split == "test":
        return Path("track1_test_data") / {"seg": "seg/images/test", "det": "dec/test", "cls": "cls/test"}[task]
    return (
        Path("track1_train_data") / {"seg": f"seg/images/{split}", "det": f"dec/{split}", "cls": f"cls/{split}"}[task]
    )


def _label_folder(split: str) -> Path:
    return Path("track1_test_data/ground_truth/seg" if split == "test" else f"track1_train_data/seg/label/{split}")


def _folders() -> Iterator[Path]:
    for split in requests.SPLITS:
        yield from (_folder(task, split) for task in TASKS)
        yield _label_folder(split)


def _name(index: int) -> str:
    return f"{index + 1:05d}.jpg"


def _jobs(request: DemoRequest, task: str, split: str) -> list[_Job]:
    count, classes = request.images(task)[split], 1
    if task != "seg":
        classes = request.vehicle_classes if task == "cls" else request.sign_classes
    # Every class equally often, in an order that tells nothing
    order = np.random.default_rng([request.seed, TASKS.index(task), requests.SPLITS.index(split)])
    labels = order.permutation(np.arange(count) % classes).tolist()
    return [_Job(task, split, index, label) for index, label in enumerate(labels)]


def _run(draw: Callable[[_Job], _Drawn], jobs: Sequence[_Job], workers: int) -> Iterator[_Drawn]:
    """Yields the results in the order of the jobs."""
    if workers == 1:
        yield from map(draw, jobs)
        return
    # spawn: forking a process that runs threads (an imported paddle, OpenCV) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from pool.map(draw, jobs, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered once, by the parent


def _draw(request: DemoRequest, out: Path, job: _Job) -> _Drawn:
    """Draws and writes one picture; its own generator makes it independent of all others."""
    rng = np.random.default_rng([request.seed, TASKS.index(job.task), requests.SPLITS.index(job.split), job.index])
    path = out / _folder(job.task, job.split) / _name(job.index)
    boxes: list[list[float]] = []
    objects: list[SeenObject] = []
    texts: list[str] = []
    if job.task == "seg":
        image, label_map, objects, conditions = render_street(rng, request.size)
        _write(out / _label_folder(job.split) / f"{path.stem}.png", label_map)
        labels = np.flatnonzero(np.bincount(label_map.ravel(), minlength=256)[: len(SEG_CLASSES)]).tolist()
        # A generator of its own: words that change move no pixel
        words = np.random.default_rng([request.seed, len(TASKS), requests.SPLITS.index(job.split), job.index])
        texts = describe(words, objects, label_map, conditions)
    elif job.task == "det":
        image, corners, indices = render_signs(rng, request.det_size, request.sign_classes, job.label)
        labels = indices.tolist()
        rounded = np.round(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(float), 2)
        boxes = rounded.tolist()
    else:
        height = round(request.cls_size[0] * rng.uniform(0.75, 1.25))
        width = round(height * request.cls_size[1] / request.cls_size[0] * rng.uniform(0.85, 1.2))
        image, labels = render_vehicle(rng, job.label, request.vehicle_classes, (height, width)), [job.label]
    _write(path, image)
    return _Drawn((image.shape[0], image.shape[1]), labels, boxes, objects, texts)


def _write(path: Path, image: np.ndarray) -> None:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(
        path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    )
    path.write_bytes(data.tobytes())


def _write_lists(out: Path, request: DemoRequest, drawn: dict[tuple[str, str], list[_Drawn]]) -> None:
    train, test = out / "track1_train_data", out / "track1_test_data"
    _write_lines(train / "seg/classes.txt", SEG_CLASSES)
    _write_lines(train / "cls/classes.txt", [vehicle.name for vehicle in vehicle_classes(request.vehicle_classes)])
    for split in requests.SPLITS:
        lines = [f"{_name(index)} {item.labels[0]}" for index, item in enumerate(drawn["cls", split])]
        _write_lines(test / "ground_truth/cls.txt" if split == "test" else train / f"cls/{split}.txt", lines)
        _write_street_lists(test / "ground_truth" if split == "test" else train / "seg", split, drawn["seg", split])
        coco = _coco(request, drawn["det", split])
        target = test / "ground_truth/dec.json" if split == "test" else train / f"dec/{split}.json"
        target.write_text(json.dumps(coco), encoding="utf-8")
        if split == "test":
            # The challenge ships it for the category ids alone, so it must not give the boxes away
            (test / "dec/val.json").write_text(json.dumps({**coco, "annotations": []}), encoding="utf-8")
            _write_lines(test / "dec/test.txt", [image["file_name"] for image in coco["images"]])


def _write_street_lists(folder: Path, split: str, drawn: Sequence[_Drawn]) -> None:
    """Writes the objects and the sentences of the street scenes as COCO files."""
    images = _images(drawn)
    content = {
        "instances": coco_instances(images, [item.objects for item in drawn]),
        "captions": coco_captions(images, [item.captions for item in drawn]),
    }
    for name, coco in content.items():
        (folder / f"{name}_{split}.json").write_text(json.dumps(coco), encoding="utf-8")


def _images(drawn: Sequence[_Drawn]) -> list[dict[str, Any]]:
    return [
        {"id": index + 1, "file_name": _name(index), "height": item.size[0], "width": item.size[1]}
        for index, item in enumerate(drawn)
    ]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _coco(request: DemoRequest, drawn: Sequence[_Drawn]) -> dict[str, Any]:
    """Returns a COCO dictionary; image ids count from 1, as the lines of test.txt do in a submission."""
    rows = [(index, box, label) for index, item in enumerate(drawn)
            for box, label in zip(item.boxes, item.labels, strict=True)]  # fmt: skip
    annotations = [
        {"id": number, "image_id": index + 1, "category_id": label + 1, "bbox": box,
         "area": round(box[2] * box[3], 2), "iscrowd": 0}
        for number, (index, box, label) in enumerate(rows, 1)
    ]  # fmt: skip
    names = sign_names(request.sign_classes)
    categories = [{"id": index + 1, "name": name, "supercategory": "sign"} for index, name in enumerate(names)]
    return {"images": _images(drawn), "annotations": annotations, "categories": categories}


def _summarise(request: DemoRequest, drawn: dict[tuple[str, str], list[_Drawn]]) -> Summary:
    names = {
        "seg": SEG_CLASSES,
        "det": sign_names(request.sign_classes),
        "cls": [f"{index} {vehicle.body}" for index, vehicle in enumerate(vehicle_classes(request.vehicle_classes))],
    }
    classes: dict[str, dict[str, dict[str, int]]] = {task: {} for task in TASKS}
    for (task, split), items in drawn.items():
        counts = np.bincount([label for item in items for label in item.labels], minlength=len(names[task]))
        classes[task][split] = dict(zip(names[task], counts.tolist(), strict=True))
    empty = {split: sum(not item.labels for item in drawn["det", split]) for split in requests.SPLITS}
    return Summary(False, {task: request.images(task) for task in TASKS}, classes, empty)


def default_workers() -> int:
    """Returns the number of processors that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)
