"""What the service needs to know of a model; the only file that knows bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.predict.drawing import class_colors
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.structures import Size
from ppmtl.tasks.base import Task


@dataclass(frozen=True)
class Model:
    """A model that can be served.

    Attributes:
        name: of the bundle.
        version: changes whenever its weights do.
        tasks: {name: task}, in the bundle's order.
        open_backend: opens the network; slow, called once.
        size: (height, width) shown to all tasks; None = the first task's own view of each picture.
        threshold: boxes below this score are left out where a request does not say.
        batch: pictures per run where the export fixed them.
        tta: whether views of other sizes can be run; not where the export fixed the size.
        per_task_size: show a picture to every task at the task's own size, as evaluation does: more exact, and one run of
            the trunk per size instead of one for all.
    """

    name: str
    version: str
    tasks: Mapping[str, Task]
    open_backend: Callable[[], Backend]
    size: Size | None = None
    threshold: float = 0.5
    batch: int | None = None
    tta: bool = True
    per_task_size: bool = False

    def pipeline(self, names: Sequence[str], backend: Backend, original: Size, *, augment: bool) -> Pipeline:
        """Returns the pipeline of ``names`` for a picture of ``original`` size, set up as ``tools/infer.py`` does."""
        tasks = {name: self.tasks[name] for name in names}
        shared = None if self.per_task_size else self.size or next(iter(tasks.values())).plain_size(original)
        return Pipeline(tasks, backend, augment=augment, shared_size=shared)

    def describe(self) -> dict[str, Any]:
        """Returns what /v1/model says of the tasks."""
        return {
            name: {
                "type": task.task_type,
                "classes": [
                    {"index": index, "id": class_id, "name": label, "colour": colour}
                    for index, (class_id, label, colour) in enumerate(
                        zip(task.classes.ids, task.classes.names, class_colors(task.classes).tolist(), strict=True)
                    )
                ],
            }
            for name, task in self.tasks.items()
        }


def from_bundle(folder: Path, tasks: Sequence[str] | None, *, per_task_size: bool = False, **backend: Any) -> Model:
    """Returns the model of an exported bundle; its files are checked, but its graphs not yet opened.

    Args:
        folder: that ``tools/export_model.py`` wrote.
        tasks: serve only these.
        per_task_size: as in :class:`Model`; a bundle exported for one size has only that.
        backend: keyword arguments of ``open_backend``.

    Raises:
        ValueError: if the bundle is damaged or lacks a task.
    """
    bundle = read_bundle(folder, tasks)
    settings = bundle.settings
    return Model(
        settings.name,
        settings.source.weights_sha256[:12],
        bundle.tasks,
        lambda: open_backend(bundle, **backend),
        settings.input.size or settings.infer.size,
        settings.infer.draw_threshold,
        settings.input.batch,
        settings.input.size is None,
        per_task_size and settings.input.size is None,
    )
