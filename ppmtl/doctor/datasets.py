"""The data sets of a run: those of its sources ("train") and of its evaluation ("val")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppmtl import build
from ppmtl.config import target_of
from ppmtl.config.settings import Settings
from ppmtl.data.findings import Finding, collecting
from ppmtl.data.source import Source
from ppmtl.doctor.samples import DataSet
from ppmtl.predict.evaluate import EvalSet
from ppmtl.tasks.base import Task


def open_datasets(settings: Settings, tasks: Mapping[str, Task[Any]]) -> Iterator[DataSet]:
    """All data sets of the config; what is wrong is found and not raised, wrong entries of lists are left out."""
    for name, split, part, of_set in _parts(settings):
        paths = _paths(settings, part, of_set)
        reader = None
        with collecting() as findings:
            findings += [Finding(str(p), "does not exist", kind="missing_path") for p in paths if not p.exists()]
            try:
                if not findings:
                    reader = build.build_reader(settings, part, of_set, tasks)
                    findings += reader.remarks
            except ValueError as error:
                findings.append(Finding.of(name, error))
        yield DataSet(name, split, reader, paths, tuple(findings), repr(part))


def built_datasets(
    settings: Settings, sources: Mapping[str, Source], eval_sets: Mapping[str, EvalSet]
) -> Iterator[DataSet]:
    """The data sets of a run whose readers are built already."""
    readers = {f"sources.{name}": source.reader for name, source in sources.items()}
    readers |= {f"eval.datasets.{name}": of_set.reader for name, of_set in eval_sets.items()}
    for name, split, part, of_set in _parts(settings):
        if name in readers:
            found = tuple(readers[name].remarks)
            yield DataSet(name, split, readers[name], _paths(settings, part, of_set), found, repr(part))


def _parts(settings: Settings) -> list[tuple[str, str, Any, tuple[str, ...]]]:
    """(name, split, what builds the reader, its tasks) of every data set."""
    parts = [(f"sources.{n}", "train", s.dataset, s.all_tasks(n)) for n, s in settings.sources.items()]
    of_sets = settings.eval.tasks()
    return parts + [(f"eval.datasets.{n}", "val", s.part, of_sets[n]) for n, s in settings.eval.datasets.items()]


def _paths(settings: Settings, part: Any, tasks: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(target_of(part).required_paths(Path(settings.data_root), tasks, **part.keywords))
