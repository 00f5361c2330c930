"""The short form that runs before training: what would end the run hours later ends it before the first step."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppmtl.config.settings import Settings
from ppmtl.data.findings import DataError, Finding
from ppmtl.data.source import Source
from ppmtl.doctor.cache import Cache
from ppmtl.doctor.datasets import built_datasets
from ppmtl.doctor.report import entry_text, group
from ppmtl.doctor.samples import examine
from ppmtl.doctor.statistics import class_statistics
from ppmtl.predict.evaluate import EvalSet, Evaluation
from ppmtl.structures import Sample
from ppmtl.tasks.base import Task

LOGGER = logging.getLogger("ppmtl")


def check_before_training(
    settings: Settings, tasks: Mapping[str, Task[Any]], sources: Mapping[str, Source], eval_sets: Mapping[str, EvalSet]
) -> None:
    """Looks at metric names and classes, and reads every image and label that is not known from before.

    With ``train.unreadable: skip``, a training image or label that cannot be read is only a warning.

    Raises:
        DataError: with everything that would end the run.
    """
    started = time.perf_counter()
    datasets = list(built_datasets(settings, sources, eval_sets))
    LOGGER.info("data check: %d data sets, %d images", len(datasets), sum(len(d.reader or ()) for d in datasets))
    examined = examine(datasets, Cache())
    found = [("config", finding) for finding in (metric_names(settings, tasks) if eval_sets else ())]
    skip = settings.train.unreadable == "skip"
    found += [(of_set.dataset.name, finding) for of_set in examined for finding in of_set.findings(skip=skip)]
    found += [("classes", finding) for finding in class_statistics(tasks, examined)[1]]
    for entry in group(found):
        if entry.severity == "warning":
            LOGGER.warning("data check: %s", entry_text(entry, examples=1))
    if errors := [finding for _, finding in found if finding.severity == "error"]:
        problem = f"{len(errors)} errors; tools/doctor.py lists all of them, --skip_check starts all the same"
        raise DataError("data check", problem, errors)
    LOGGER.info("data check: no errors, %.1f s; tools/doctor.py looks at more, --skip_check leaves this out",
                time.perf_counter() - started)  # fmt: skip


def metric_names(settings: Settings, tasks: Mapping[str, Task[Any]]) -> list[Finding]:
    """An error for each of train.best_metric and train.early_stop.metric that no evaluation of the run measures.

    The names come from an evaluation of one made-up image per task that was predicted perfectly.
    """
    size = (32, 32)
    metrics = {}
    for name in dict.fromkeys(task for of_set in settings.eval.tasks().values() for task in of_set):
        meter, label = tasks[name].new_meter(), tasks[name].example(size)
        meter.add(Sample("example", np.zeros((*size, 3), np.uint8), {name: label}), tasks[name].truth(label))
        metrics[name] = meter.result()
    measured, found = Evaluation(metrics, {}, {}), []
    early_stop = settings.train.early_stop
    wanted = {"train.best_metric": settings.train.best_metric}
    if early_stop is not None and early_stop.metric:
        wanted["train.early_stop.metric"] = early_stop.metric
    for key, metric in wanted.items() if metrics else ():
        try:
            measured.value(metric)
        except ValueError as error:
            found.append(Finding(key, str(error).removeprefix("train.best_metric: "), kind="metric_name"))
    return found
