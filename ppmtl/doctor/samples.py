"""Looks at every image and every label of several data sets, in parallel, and at nothing twice.

Its processes import this file, so it does not import Paddle, which takes seconds.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from ppmtl.data.findings import Finding
from ppmtl.data.reader import Reader
from ppmtl.data.workers import end_with_parent
from ppmtl.doctor.cache import Cache, stamp
from ppmtl.doctor.images import ImageFacts, examine_image, image_findings

_CHUNK = 16  # jobs handed over at a time
_STORE_EVERY = 1000  # facts: about as many are looked at again after an interruption
_FEW = 64  # jobs: for fewer than these, starting processes takes longer than the work

Job = TypeVar("Job")
Answer = TypeVar("Answer")
_given: Callable[[Any], Any]


@dataclass(frozen=True)
class DataSet:
    """One data set of a run.

    Attributes:
        name: its key in the config, e.g. "sources.seg".
        split: "train" or "val".
        reader: None if it could not be built.
        paths: those that it needs, files and folders.
        findings: what is wrong or odd about its lists and annotations.
        settings: its settings as text: what is known of its labels holds for these only.
    """

    name: str
    split: str
    reader: Reader | None
    paths: tuple[Path, ...]
    findings: tuple[Finding, ...]
    settings: str


@dataclass(frozen=True)
class LabelFacts:
    """What is known of the labels of one sample.

    Attributes:
        finding: (place, kind, text) of why they cannot be used; None = they can.
        counts: {task: how much of every class there is}, empty for labels without classes; tasks without a label are absent.
        objects: {task: xyxy boxes in pixels of the image}.
    """

    finding: tuple[str, str, str] | None = None
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    objects: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """A data set with what is known of its samples, by position; labels are None where the image cannot be used."""

    dataset: DataSet
    files: tuple[str, ...]
    images: tuple[ImageFacts, ...]
    labels: tuple[LabelFacts | None, ...]

    def findings(self, *, skip: bool) -> list[Finding]:
        """What is wrong or odd about lists, annotations, images and labels.

        Args:
            skip: training goes on without samples that cannot be read: then they are warnings.
        """
        named = {finding.place for finding in self.dataset.findings}  # a listed file that does not exist
        found: list[Finding] = []
        for file, image, labels in zip(self.files, self.images, self.labels, strict=True):
            found += [] if file in named else image_findings(file, image)
            if labels is not None and labels.finding is not None:
                place, kind, text = labels.finding
                found.append(Finding(place, text, kind=kind))
        if skip and self.dataset.split == "train":
            found = [replace(f, severity="warning") if f.severity == "error" else f for f in found]
        return [*self.dataset.findings, *found]


def examine(
    datasets: Sequence[DataSet],
    cache: Cache,
    *,
    decode: bool = True,
    workers: int | None = None,
) -> list[Examined]:
    """Looks at the images and labels of data sets.

    Args:
        datasets: those whose reader is None are left out.
        cache: what is in there is not read again.
        decode: decode images; False = look at headers only.
        workers: processes; None = as many as there are cores, 0 = this one.
    """
    built = [(dataset, dataset.reader) for dataset in datasets if dataset.reader is not None]
    files = [tuple(reader.path(index) for index in range(len(reader))) for _, reader in built]
    images = _images(sorted({file for of_set in files for file in of_set}), cache, decode, workers)
    found = []
    for (dataset, reader), of_set in zip(built, files, strict=True):
        wanted = [i for i in range(len(reader)) if images[of_set[i]].problem is None]
        labels = _labels(dataset, reader, [(i, images[of_set[i]].size) for i in wanted], cache, workers)
        facts = tuple(labels.get(i) for i in range(len(reader)))
        found.append(Examined(dataset, of_set, tuple(images[file] for file in of_set), facts))
    return found


def _images(files: Sequence[str], cache: Cache, decode: bool, workers: int | None) -> dict[str, ImageFacts]:
    jobs = {f"image {Path(file).absolute()}": file for file in files}
    stamps = {key: stamp([file]) for key, file in jobs.items()}
    known = {key: ImageFacts(**_tuples(value)) for key, value in cache.load(stamps).items()}
    if decode:
        known = {key: facts for key, facts in known.items() if facts.fingerprint is not None}
    facts = _completed(known, jobs, stamps, partial(examine_image, decode=decode), cache, "images", workers)
    return {file: facts[key] for key, file in jobs.items()}


def _labels(
    dataset: DataSet, reader: Reader, wanted: Sequence[tuple[int, tuple[int, int]]], cache: Cache, workers: int | None
) -> dict[int, LabelFacts]:
    """{index: labels} of samples (index, size of the image)."""
    examine_one = partial(_examine_labels, reader)
    own_files = {i: reader.files(i)[1:] for i, _ in wanted}
    if not any(own_files.values()):  # in memory already, from the list or annotation file
        return {i: examine_one((i, size)) for i, size in wanted}
    about = repr((dataset.settings, {task: (c.names, c.ids) for task, c in reader.tasks.items()}))
    identity = hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
    jobs = {
        f"label {identity} {' '.join(str(Path(f).absolute()) for f in reader.files(job[0]))}": job for job in wanted
    }
    lists = [str(path) for path in dataset.paths if path.is_file()]
    stamps = {key: f"{stamp([*own_files[index], *lists])} {size}" for key, (index, size) in jobs.items()}
    known = {key: LabelFacts(**_tuples(value)) for key, value in cache.load(stamps).items()}
    facts = _completed(known, jobs, stamps, examine_one, cache, f"labels of {dataset.name}", workers)
    return {index: facts[key] for key, (index, _) in jobs.items()}


def _completed(
    known: Mapping[str, Answer], jobs: Mapping[str, Job], stamps: Mapping[str, str], work: Callable[[Job], Answer],
    cache: Cache, what: str, workers: int | None,
) -> dict[str, Answer]:  # fmt: skip
    """``known`` {key: facts} with the facts of all other ``jobs``, which are stored on the way."""
    missing = [key for key in jobs if key not in known]
    fresh: dict[str, Answer] = {}
    stored = 0
    for key, answer in zip(missing, _run(work, [jobs[key] for key in missing], what, workers), strict=True):
        fresh[key] = answer
        if len(fresh) - stored == _STORE_EVERY or len(fresh) == len(missing):
            cache.store(stamps, {key: asdict(fresh[key]) for key in missing[stored : len(fresh)]})  # type: ignore[call-overload]
            stored = len(fresh)
    return {**known, **fresh}


def _examine_labels(reader: Reader, job: tuple[int, tuple[int, int]]) -> LabelFacts:
    """The labels of sample ``job[0]``, whose image has (height, width) ``job[1]`` and is not read again."""
    index, size = job
    blank = np.broadcast_to(np.uint8(0), (*size, 3))
    try:
        labels = reader.labels(index, blank)
    except ValueError as error:
        wrong = Finding.of(reader.path(index), error)
        return LabelFacts((wrong.place, wrong.kind, wrong.problem))
    of_task = {task: label.class_counts(len(reader.tasks[task])) for task, label in labels.items()}
    counts = {task: [] if of_classes is None else of_classes.tolist() for task, of_classes in of_task.items()}
    objects = {task: boxes.tolist() for task, label in labels.items() if len(boxes := label.objects())}
    return LabelFacts(None, counts, objects)


def _run(work: Callable[[Job], Answer], jobs: Sequence[Job], what: str, workers: int | None) -> Iterator[Answer]:
    """work(job) of every job, in parallel, in order, with a progress bar on a terminal."""
    count = _cores() if workers is None else workers
    bar = partial(tqdm, total=len(jobs), desc=what, unit="file", disable=not sys.stderr.isatty(), leave=False)
    if count <= 1 or len(jobs) < _FEW:
        yield from bar(map(work, jobs))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy Paddle's threads in the middle of their work
    with ProcessPoolExecutor(count, context, _start, (work,)) as pool:
        yield from bar(pool.map(_work, jobs, chunksize=_CHUNK))


def _start(work: Callable[[Any], Any]) -> None:
    global _given  # once per process: a reader with its lists is too large to come with every job
    _given = work
    end_with_parent()
    cv2.setNumThreads(0)


def _work(job: Any) -> Any:
    return _given(job)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    """The JSON object with its lists as tuples, as the dataclasses have them."""
    return {key: tuple(part) if isinstance(part, list) else part for key, part in value.items()}
