"""The doctor: builds the data sets of a run, looks at all of them, and puts together what it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl import build
from ppmtl.config import target_of
from ppmtl.config.settings import Settings
from ppmtl.data.findings import Finding, collecting
from ppmtl.data.images import SUFFIXES
from ppmtl.data.source import Source
from ppmtl.doctor.cache import Cache
from ppmtl.doctor.datasets import open_datasets
from ppmtl.doctor.duplicates import duplicate_findings
from ppmtl.doctor.objects import Answered, object_statistics, shown_sides, trained_sides
from ppmtl.doctor.report import Report, Table, group
from ppmtl.doctor.samples import Examined, examine
from ppmtl.doctor.start import metric_names
from ppmtl.doctor.statistics import class_statistics, epoch_lengths, overview
from ppmtl.tasks.base import Task


def examine_run(settings: Settings, *, decode: bool = True, workers: int | None = None) -> Report:
    """Looks at every source and evaluation set of a run.

    Args:
        settings: the run.
        decode: decode every image; False = headers only.
        workers: processes; None = as many as there are cores.

    Raises:
        ConfigError: if a class list cannot be read.
    """
    with collecting() as of_classes:
        tasks = build.build_tasks(settings)
    datasets = list(open_datasets(settings, tasks))
    examined = examine(datasets, Cache(), decode=decode, workers=workers)
    skip = settings.train.unreadable == "skip"
    findings = [("config", finding) for finding in metric_names(settings, tasks)]
    named = {finding for dataset in datasets for finding in dataset.findings}  # captions are read for both
    findings += [("classes", finding) for finding in of_classes if finding not in named]
    findings += [(d.name, finding) for d in datasets if d.reader is None for finding in d.findings]
    findings += [(s.dataset.name, finding) for s in examined for finding in s.findings(skip=skip)]
    findings += [("across data sets", finding) for finding in duplicate_findings(examined)]
    findings += [("folders", finding) for finding in _unlisted(examined)]
    streams, refused = _streams(settings, tasks, examined)
    findings += [(finding.place, finding) for finding in refused]
    tables: list[Table] = [overview(examined)]
    for found_tables, found in (
        _one(epoch_lengths(settings, [s for s in examined if s.files])),
        class_statistics(tasks, examined),
        _one(object_statistics(_all_sides(streams, tasks, examined), _answered(settings))),
    ):
        tables += found_tables
        findings += [("whole data sets", finding) for finding in found]
    return Report(group(findings), tuple(tables))


def _one(pair: tuple[Table, list[Finding]]) -> tuple[list[Table], list[Finding]]:
    return [pair[0]], pair[1]


def _unlisted(examined: Sequence[Examined]) -> Iterator[Finding]:
    """Images in the folders of the data sets that none of them uses, without those that a finding names already."""
    used = {Path(file).resolve() for of_set in examined for file in of_set.files}
    used |= {Path(finding.place).resolve() for of_set in examined for finding in of_set.dataset.findings}
    folders = {path.resolve() for of_set in examined for path in of_set.dataset.paths if path.is_dir()}
    label_files = {
        Path(file).resolve()
        for of_set in examined
        if (reader := of_set.dataset.reader) is not None
        for index in range(len(reader))
        for file in reader.files(index)
    }
    for folder in sorted(folders):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path not in used and path not in label_files:
                yield Finding(str(path), "no data set of the run uses this image", "note", "unlisted_image")


def _streams(
    settings: Settings, tasks: Mapping[str, Task[Any]], examined: Sequence[Examined]
) -> tuple[dict[str, Source], list[Finding]]:
    """{data set: its stream} of the training sets, and why the others have none (a view that makes captions untrue)."""
    streams, refused = {}, []
    for of_set in examined:
        name, reader = of_set.dataset.name, of_set.dataset.reader
        if of_set.dataset.split == "train" and reader is not None and of_set.files:
            try:
                streams[name] = build.build_source(settings, name.removeprefix("sources."), reader, tasks)
            except ValueError as error:
                refused.append(Finding.of(name, error))
    return streams, refused


def _all_sides(
    streams: Mapping[str, Source], tasks: Mapping[str, Task[Any]], examined: Sequence[Examined]
) -> dict[tuple[str, str], np.ndarray]:
    """{(place, task): sides of objects in px of the network input}, in training views and in evaluation."""
    sides: dict[tuple[str, str], np.ndarray] = {}
    for of_set in examined:
        name = of_set.dataset.name
        with_objects = {task for facts in of_set.labels if facts is not None for task in facts.objects}
        if of_set.dataset.split == "val":
            sides |= {(name, task): shown_sides(of_set, tasks[task]) for task in sorted(with_objects)}
        elif with_objects and name in streams and _usable(of_set):
            for view, of_tasks in trained_sides(streams[name]).items():
                sides |= {
                    (f"{name}.views.{view}" if view else name, t): s for t, s in of_tasks.items() if t in with_objects
                }
    return sides


def _usable(of_set: Examined) -> bool:
    """Whether every sample can be read, so that its training views can be looked at."""
    images = all(facts.problem is None for facts in of_set.images)
    return images and all(facts is not None and facts.finding is None for facts in of_set.labels)


def _answered(settings: Settings) -> dict[str, Answered]:
    """{task: the ``answered`` of its head, with that head's settings}."""
    answers = settings.model.answers()
    return {
        answers[name]: partial(target_of(head.part).answered, **head.part.keywords)
        for name, head in settings.model.heads.items()
    }
