"""Settings -> class lists, tasks, sources, model. The only file that knows all parts."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ppmtl.config import ConfigError, nearest
from ppmtl.config.settings import ClassSettings, Settings
from ppmtl.data.classes import read_class_file
from ppmtl.data.source import Source
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.structures import ClassList
from ppmtl.tasks.base import Task

DATA_TREE = """\
  <data_root>/track1_train_data/
      seg/images/{train,val}/*.jpg   seg/label/{train,val}/*.png     (same stem; 0..18, 255 = not labelled)
      cls/{train,val}/*.jpg          cls/{train,val}.txt             (lines "name id", ids from 0)
      dec/{train,val}/*.jpg          dec/{train,val}.json            (COCO)"""


def select_tasks(settings: Settings, names: Sequence[str] | None) -> Settings:
    """Returns settings that know only the tasks named: no head, source or data set of another one is left.

    Raises:
        ConfigError: if a name is no task of the config.
    """
    if names is None:
        return settings
    unknown = [name for name in names if name not in settings.tasks]
    if unknown:
        known = ", ".join(settings.tasks)
        raise ConfigError([f"--tasks: got {name!r}, the config has {known}" for name in unknown])

    def kept(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: part for name, part in parts.items() if name in names}

    sources = {
        name: dataclasses.replace(source, tasks=tuple(t for t in source.tasks if t in names))
        for name, source in settings.sources.items()
    }
    return dataclasses.replace(
        settings,
        classes=kept(settings.classes),
        tasks=kept(settings.tasks),
        model=dataclasses.replace(settings.model, heads=kept(settings.model.heads)),
        sources={name: source for name, source in sources.items() if source.tasks},
        eval=dataclasses.replace(settings.eval, datasets=kept(settings.eval.datasets)),
    )


def check_agreement(settings: Settings) -> None:
    """Checks that the parts of a config speak of the same tasks.

    Raises:
        ConfigError: with every disagreement.
    """
    problems = []
    tasks = settings.tasks
    groups: dict[str, Mapping[str, Any]] = {
        "classes": settings.classes,
        "model.heads": settings.model.heads,
        "eval.datasets": settings.eval.datasets,
        "train.loss_weights": settings.train.loss_weights,
    }
    for where, group in groups.items():
        problems += [_unknown_task(f"{where}.{name}", name, tasks) for name in group if name not in tasks]
    for where in ("classes", "model.heads"):
        problems += [f"{where}: task '{name}' has no entry here" for name in tasks if name not in groups[where]]
    for name, source in settings.sources.items():
        where = f"sources.{name}.tasks"
        problems += [_unknown_task(where, task, tasks) for task in source.tasks if task not in tasks]
        if not source.tasks:
            problems.append(f"{where}: got an empty list; name at least one of {', '.join(tasks)}")
    for name, head in settings.model.heads.items():
        wanted = getattr(_callable(head), "task_type", None)
        given = getattr(_callable(tasks[name]), "task_type", None) if name in tasks else wanted
        if wanted != given:
            problems.append(
                f"model.heads.{name}: {_callable(head).__name__} answers {wanted}, but tasks.{name} asks {given}"
            )
    if problems:
        raise ConfigError(problems)


def _unknown_task(where: str, name: str, tasks: Mapping[str, Any]) -> str:
    guess = nearest(name, list(tasks))
    hint = f"; did you mean '{guess}'?" if guess else ""
    return f"{where}: '{name}' is no task of this config; allowed: {', '.join(tasks)}{hint}"


def _callable(part: Any) -> Any:
    return getattr(part, "func", part)


def missing_paths(settings: Settings, *, training: bool, evaluation: bool) -> list[Path]:
    """Returns every data path of the run that does not exist, class files included, without reading any."""
    root = Path(settings.data_root)
    parts = [source.dataset for source in settings.sources.values()] if training else []
    parts += list(settings.eval.datasets.values()) if evaluation else []
    wanted = [path for part in parts for path in _callable(part).required_paths(root, **getattr(part, "keywords", {}))]
    wanted += [root / c.names for c in settings.classes.values() if isinstance(c.names, str)]
    return sorted({path for path in wanted if not path.exists()})


def missing_data_message(settings: Settings, missing: Sequence[Path]) -> str:
    """Returns what is missing, how the tree must look and how to get demo data in the same layout."""
    listed = "\n".join(f"  {path}" for path in missing)
    return (
        f"data: {len(missing)} of the paths that this config names do not exist:\n{listed}\n"
        f"The challenge's tree, under data_root = {settings.data_root}:\n{DATA_TREE}\n"
        "Point data_root at your copy:            -o data_root=/path/to/datasets\n"
        f"or render demo data in the same layout:  python tools/make_demo_data.py --out {settings.data_root}"
    )


def build_classes(settings: Settings, stored: Mapping[str, Any] | None = None) -> dict[str, ClassList]:
    """Returns the class list of every task.

    Args:
        settings: the run.
        stored: {task: {"names", "ids"}} of the checkpoint in use; it wins, because these are the classes that the
            weights answer in. None = read the config's lists and files.

    Raises:
        ConfigError: if a file is missing or unreadable, or its length is not ``count``.
    """
    lists, problems = {}, []
    for name, wanted in settings.classes.items():
        if stored and name in stored:
            lists[name] = ClassList(tuple(stored[name]["names"]), tuple(stored[name]["ids"]))
            continue
        try:
            lists[name] = _class_list(wanted, Path(settings.data_root))
        except (ValueError, OSError) as error:
            problems.append(f"classes.{name}: {error}")
            continue
        if wanted.count is not None and wanted.count != len(lists[name]):
            problems.append(
                f"classes.{name}: count is {wanted.count}, but {wanted.names} has {len(lists[name])} classes; "
                f"set -o classes.{name}.count={len(lists[name])}, or name the right file"
            )
    if problems:
        raise ConfigError(problems)
    return lists


def _class_list(wanted: ClassSettings, root: Path) -> ClassList:
    if isinstance(wanted.names, str):
        return read_class_file(root / wanted.names)
    if wanted.names is not None:
        return ClassList(wanted.names)
    assert wanted.count is not None
    return ClassList(tuple(str(index) for index in range(wanted.count)))


def build_tasks(settings: Settings, classes: Mapping[str, ClassList]) -> dict[str, Task]:
    """Returns {name: task}."""
    return {name: part(name, classes[name]) for name, part in settings.tasks.items()}


def build_model(settings: Settings, classes: Mapping[str, ClassList]) -> MultiTaskModel:
    """Returns the network with freshly initialised weights; seed Paddle before calling it."""
    backbone = settings.model.backbone()
    heads = {name: head(backbone.out_specs, len(classes[name])) for name, head in settings.model.heads.items()}
    return MultiTaskModel(backbone, heads, mean=settings.model.mean, std=settings.model.std)


def build_sources(
    settings: Settings,
    classes: Mapping[str, ClassList],
    tasks: Mapping[str, Task],
    *,
    rank: int = 0,
    world_size: int = 1,
    repeat: int | None = None,
) -> dict[str, Source]:
    """Returns {name: stream}, in the order of the config; the last three arguments as in ``Source``."""
    root = Path(settings.data_root)
    return {
        name: Source(
            name,
            source.dataset(root, classes[source.tasks[0]]),
            source.transforms and [transform() for transform in source.transforms],
            {task: tasks[task] for task in source.tasks},
            batch_size=source.batch_size,
            seed=settings.seed,
            sampler=source.sampler,
            rank=rank,
            world_size=world_size,
            repeat=repeat,
        )
        for name, source in settings.sources.items()
    }


def build_val_datasets(settings: Settings, classes: Mapping[str, ClassList]) -> dict[str, Any]:
    """Returns {task: labelled data set}."""
    root = Path(settings.data_root)
    return {name: part(root, classes[name]) for name, part in settings.eval.datasets.items()}


def describe(config: Mapping[str, Any], classes: Mapping[str, ClassList]) -> dict[str, Any]:
    """Returns what every checkpoint carries besides tensors: config, class lists, environment."""
    return {
        "config": dict(config),
        "classes": {name: {"names": list(c.names), "ids": list(c.ids)} for name, c in classes.items()},
        "environment": environment(),
    }


def environment() -> dict[str, str]:
    """Returns versions, platform and git revision, the first thing that a maintainer asks for."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "command": " ".join(sys.argv)}
    for package in ("ppmtl", "paddlepaddle", "paddlepaddle-gpu", "numpy", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    here = Path(__file__).resolve().parent
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    found["git"] = git.stdout.strip() if git.returncode == 0 else "not a git checkout"
    return found
