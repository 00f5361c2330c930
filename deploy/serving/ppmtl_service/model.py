"""What the service needs to know of a model; the only file that knows bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.predict.pipeline import Backend, SharedSize
from ppmtl.tasks.base import Task


@dataclass(frozen=True)
class Model:
    """A model that can be served, called ``name``.

    Attributes:
        version: changes whenever its weights do.
        tasks: {name: task}, in the bundle's order.
        open_backend: opens the network; slow, called once.
        shared_size: the size at which all tasks see an image, as ``Pipeline`` takes it; None = each its own.
        threshold: boxes below this score are left out where a request does not say.
        batch: images per run where the export fixed them.
        tta: whether views of other sizes can be run; not where the export fixed the size.
    """

    name: str
    version: str
    tasks: Mapping[str, Task[Any]]
    open_backend: Callable[[], Backend]
    shared_size: SharedSize = None
    threshold: float = 0.5
    batch: int | None = None
    tta: bool = True


def from_bundle(folder: Path, tasks: Sequence[str] | None, *, per_task_size: bool = True, **backend: Any) -> Model:
    """The model of an exported bundle; its files are checked, but its graphs not yet opened.

    Args:
        folder: the bundle; ValueError if it is damaged or lacks a task.
        tasks: serve only these.
        per_task_size: show an image to every task at its own size, as evaluation does; a bundle exported for one size has
            only that.
        backend: keyword arguments of ``open_backend``.
    """
    bundle = read_bundle(folder, tasks)
    settings = bundle.settings
    any_size = settings.input.size is None
    return Model(
        settings.name,
        settings.source.weights_sha256[:12],
        bundle.tasks,
        lambda: open_backend(bundle, **backend),
        bundle.shown_at(per_task_size=per_task_size),
        settings.infer.draw_threshold,
        settings.input.batch,
        any_size,
    )
