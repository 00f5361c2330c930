"""What a data set is as a whole: sizes of images, classes, and how often training sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ppmtl.config.settings import Settings
from ppmtl.data.findings import Finding, Severity
from ppmtl.doctor.report import Table
from ppmtl.doctor.samples import Examined
from ppmtl.tasks.base import Task

_IMBALANCE = 50  # times as much of the most frequent class as of the rarest


def overview(examined: Sequence[Examined]) -> Table:
    """One row per data set: images, their sizes and formats."""
    rows = []
    for of_set in examined:
        good = [facts for facts in of_set.images if facts.problem is None]
        sizes = Counter(facts.size for facts in good).most_common()
        common = ", ".join(f"{w} x {h}: {n}" for (h, w), n in sizes[:3])
        formats = ", ".join(f"{name} {n}" for name, n in Counter(facts.format for facts in good).most_common())
        more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
        tasks = ", ".join(map(partial(_labelled, of_set), of_set.dataset.reader.tasks if of_set.dataset.reader else ()))
        rows.append((of_set.dataset.name, tasks, len(of_set.files), len(good), formats, common + more))
    return Table("Data sets", ("data set", "tasks", "images", "usable", "formats", "width x height"), rows)


def _labelled(of_set: Examined, task: str) -> str:
    """The task's name, and how many images have a label for it where some have none."""
    known = [facts for facts in of_set.labels if facts is not None and facts.finding is None]
    count = sum(task in facts.counts for facts in known)
    return task if count == len(known) else f"{task} ({count} of {len(known)})"


def epoch_lengths(settings: Settings, examined: Sequence[Examined]) -> tuple[Table, list[Finding]]:
    """How often training shows the images of every source, with one process."""
    schedule = settings.train
    rows, findings = [], []
    for of_set in examined:
        if of_set.dataset.split != "train":
            continue
        source = settings.sources[of_set.dataset.name.removeprefix("sources.")]
        count = len(of_set.files)
        in_run = -(-schedule.total_steps // source.every) * schedule.accumulate * source.batch_size
        passes, per_epoch = in_run / count, in_run / schedule.epochs
        rows.append((of_set.dataset.name, count, round(per_epoch), f"{per_epoch / count:.2f}", f"{passes:.1f}"))
        if passes < 1:
            text = f"the run draws {in_run} of its {count} images"
            findings.append(Finding(of_set.dataset.name, text, "warning", "images_never_seen"))
    heads = ("source", "images", "drawn per epoch", "passes per epoch", "passes in the run")
    return Table("Epoch length (one process)", heads, rows), findings


def class_statistics(tasks: Mapping[str, Task[Any]], examined: Sequence[Examined]) -> tuple[list[Table], list[Finding]]:
    """Per task a table of what every data set has of each class, and what is missing."""
    tables: list[Table] = []
    findings: list[Finding] = []
    for name, task in tasks.items():
        amounts = {s.dataset.name: _amounts(s, name, len(task.classes)) for s in examined if _has(s, name)}
        if not any(images.any() for _, images in amounts.values()):
            continue  # no label, or labels without classes
        splits = {s.dataset.name: s.dataset.split for s in examined}
        rows = [
            (
                label,
                *(int(counts[index]) for counts, _ in amounts.values()),
                *(int(n[index]) for _, n in amounts.values()),
            )
            for index, label in enumerate(task.classes.names)
        ]
        heads = ("class", *(f"{where}: amount" for where in amounts), *(f"{where}: images" for where in amounts))
        tables.append(Table(f"Classes of {name}", heads, rows, bars=tuple(range(1, 1 + len(amounts)))))
        findings += _class_findings(task, {k: v[0] for k, v in amounts.items()}, splits)
    for of_set in examined:
        findings += _unlabelled(of_set)
    return tables, findings


def _has(of_set: Examined, task: str) -> bool:
    return of_set.dataset.reader is not None and task in of_set.dataset.reader.tasks


def _amounts(of_set: Examined, task: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of every class there is, and in how many images, (C,) each."""
    counts = [facts.counts[task] for facts in of_set.labels if facts is not None and facts.counts.get(task)]
    table = np.array(counts, np.int64).reshape(-1, num_classes)
    return table.sum(axis=0), (table > 0).sum(axis=0)


def _class_findings(task: Task[Any], amounts: Mapping[str, np.ndarray], splits: Mapping[str, str]) -> Iterator[Finding]:
    zeros = np.zeros(len(task.classes), np.int64)
    by_split = {
        split: sum((a for where, a in amounts.items() if splits[where] == split), zeros) for split in ("train", "val")
    }
    trained, measured = by_split["train"], by_split["val"]
    train_sets = ", ".join(where for where in amounts if splits[where] == "train")
    if not train_sets or not trained.any():
        return
    for index in np.flatnonzero(trained == 0):
        label = task.classes.names[index]
        if measured[index]:
            text = f"class '{label}' of task '{task.name}' is measured, but training has no sample of it"
            yield Finding(train_sets, text, "warning", "class_only_in_validation")
        else:
            text = f"class '{label}' of task '{task.name}' has no sample"
            yield Finding(train_sets, text, "warning", "class_without_samples")
    present = trained[trained > 0]
    if present.max() > _IMBALANCE * present.min():
        rare, frequent = (
            task.classes.names[int(i)] for i in (np.flatnonzero(trained == present.min())[0], trained.argmax())
        )
        text = f"task '{task.name}' has {present.max() / present.min():.0f} times as much '{frequent}' as '{rare}'"
        yield Finding(train_sets, text, "note", "class_imbalance")


def _unlabelled(of_set: Examined) -> Iterator[Finding]:
    """Images without a label for a task and labels that hold nothing; those that are meant are only counted."""
    reader = of_set.dataset.reader
    for task in reader.tasks if reader is not None else ():
        if (yield from _gaps(of_set, task)):
            continue
        with_objects = any(task in facts.objects for facts in of_set.labels if facts is not None)
        for file, facts in zip(of_set.files, of_set.labels, strict=True):
            if facts is not None and facts.counts.get(task) and not any(facts.counts[task]):
                if with_objects:
                    yield Finding(file, f"has no object of task '{task}'", "note", "no_objects")
                else:
                    yield Finding(file, f"nothing is labelled for task '{task}'", "warning", "nothing_labelled")


def _gaps(of_set: Examined, task: str) -> Generator[Finding, None, bool]:
    """Notes on the images that have no label for the task; whether none has, which is more than a note."""
    known = [(file, facts) for file, facts in zip(of_set.files, of_set.labels, strict=True) if facts is not None]
    unlabelled = [file for file, facts in known if facts.finding is None and task not in facts.counts]
    if unlabelled and len(unlabelled) == len(known):
        severity: Severity = "error" if of_set.dataset.split == "val" else "warning"  # only an evaluation fails of it
        text = f"none of its {len(known)} images has a label for task '{task}'"
        yield Finding(of_set.dataset.name, text, severity, "task_without_labels")
        return True
    for file in unlabelled:
        yield Finding(file, f"has no label for task '{task}'", "note", "no_label")
    return False
