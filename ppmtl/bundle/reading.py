"""A bundle's folder -> checked settings and tasks. No inference engine is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ppmtl.bundle.settings import SETTINGS_FILE, BundleSettings, FileRecord
from ppmtl.config import ConfigError, check, load_config, nearest, suggestion, target_of
from ppmtl.files import sha256
from ppmtl.structures import Size
from ppmtl.tasks.base import Task


@dataclass(frozen=True)
class Bundle:
    """An exported model in a folder: all of its settings, and the tasks that were asked for, in the file's order."""

    folder: Path
    settings: BundleSettings
    tasks: dict[str, Task[Any]]

    @property
    def shared_size(self) -> Size | Literal["first"]:
        """The (height, width) to show to all heads, so that the backbone runs once; see ``Pipeline``."""
        return self.settings.input.size or self.settings.infer.size or "first"

    def shown_at(self, *, per_task_size: bool) -> Size | Literal["first"] | None:
        """The ``shared_size`` of a ``Pipeline``: None = each task's own, unless the export fixed one size for all."""
        return self.settings.input.size if per_task_size else self.shared_size

    def files(self, stem: str) -> tuple[Path, ...]:
        """The files of the graph called ``stem``; the first is the graph itself."""
        return tuple(self.folder / name for name in self.settings.graph_files(stem))


def read_bundle(folder: str | Path, tasks: Sequence[str] | None = None) -> Bundle:
    """Reads a bundle after checking its settings and the digests of the files that will be loaded.

    Args:
        folder: what the export wrote.
        tasks: which heads will be used; None = all. The files of the others need not be there.

    Raises:
        ConfigError: if the folder is no bundle, infer_cfg.yml has mistakes or is of a newer version, or has no such task.
        ValueError: if a file is missing or differs from what was exported.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    wanted = list(settings.tasks) if tasks is None else tasks
    problems = [f"{folder} has no task '{n}'{suggestion(n, settings.tasks)}" for n in wanted if n not in settings.tasks]
    if problems or not wanted:
        raise ConfigError(problems or [f"no task was chosen; {folder} has {', '.join(settings.tasks)}"])
    chosen = [name for name in settings.tasks if name in wanted]
    for record in settings.files:
        if record.name in settings.all_files(chosen):
            _check_file(folder, record)
    return Bundle(folder, settings, {name: _task(settings, name, folder) for name in chosen})


def read_settings(folder: Path) -> BundleSettings:
    """The checked settings of a bundle; its graphs are not looked at. Raises ConfigError as :func:`read_bundle` does."""
    path = folder / SETTINGS_FILE
    if not folder.is_dir():
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        guess = nearest(folder.name, siblings)
        hint = f"; did you mean '{folder.with_name(guess)}'?" if guess else ""
        raise ConfigError([f"{folder}: no such folder{hint}. tools/export_model.py writes bundles"])
    if not path.is_file():
        inside = sorted(p.parent.name for p in folder.glob(f"*/{SETTINGS_FILE}"))
        hint = f"; bundles lie inside it: {', '.join(inside)}" if inside else ""
        raise ConfigError([f"{folder} is no exported bundle: it has no {SETTINGS_FILE}{hint}"])
    tree = load_config(path)
    written: Any = tree.data.get("format")
    if isinstance(written, int) and written > 1:  # its other keys may be new too: one message instead of many
        raise ConfigError(
            [f"{path}: format {written} is newer than this version reads (1): update ppmtl, or export again"]
        )
    return check(BundleSettings, tree)


def _check_file(folder: Path, record: FileRecord) -> None:
    path, wrong = folder / record.name, ""
    if not path.is_file():
        wrong = "is missing from the bundle"
    elif path.stat().st_size != record.bytes:
        wrong = f"has {path.stat().st_size} bytes, the export wrote {record.bytes}"
    elif sha256(path) != record.sha256:
        wrong = "its content differs from what the export wrote (SHA-256)"
    if wrong:
        raise ValueError(f"{path}: {wrong}; copy the folder again, or export the bundle again")


def _task(settings: BundleSettings, name: str, folder: Path) -> Task[Any]:
    """The task; a dotted type may name any callable, but only a Task may be built from a bundle."""
    kind = target_of(settings.tasks[name])
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ConfigError([f"{folder / SETTINGS_FILE}: tasks.{name}.type: {kind!r} is no task"])
    task: Task[Any] = settings.tasks[name](name, settings.classes[name])
    return task
