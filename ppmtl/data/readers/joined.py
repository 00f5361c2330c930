"""Several data sets over the same image files as one, whose samples carry the labels of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ppmtl.config import Part
from ppmtl.data.reader import Reader
from ppmtl.structures import ClassList, Label


class Joined(Reader):
    """The images that all of its readers have, each read once, with a label per task.

    BDD100K is an example: one folder of images, label PNGs for segmentation, a COCO file for detection.

    Args:
        root: where relative paths start.
        tasks: {task: its classes}; readers of other tasks are not built.
        readers: {task: reader}. Images are the same when their files are.

    Raises:
        ValueError: if a task has no reader, or no image is in all of them.
    """

    def __init__(
        self,
        root: str | Path,
        tasks: Mapping[str, ClassList],
        *,
        readers: dict[str, Annotated[Callable[..., Any], Part("ppmtl.data.readers")]],
    ) -> None:
        super().__init__(root, tasks)
        missing = [task for task in tasks if task not in readers]
        if missing:
            raise ValueError(f"joined: no reader for {', '.join(missing)}; readers has {', '.join(readers) or 'none'}")
        self._readers: dict[str, Reader] = {task: readers[task](root, {task: tasks[task]}) for task in tasks}
        indices = {
            task: {Path(reader.path(index)).resolve(): index for index in range(len(reader))}
            for task, reader in self._readers.items()
        }
        first, *others = indices.values()
        files = [file for file in first if all(file in other for other in others)]
        if not files:
            counts = ", ".join(f"{task} {len(reader)}" for task, reader in self._readers.items())
            raise ValueError(
                f"joined: no image is in all data sets ({counts} images); name the same image folder in all of them"
            )
        self._indices = [{task: of_task[file] for task, of_task in indices.items()} for file in files]

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:
        parts = [(task, part) for task, part in settings["readers"].items() if task in tasks]
        return [path for task, part in parts for path in part.func.required_paths(root, [task], **part.keywords)]

    def __len__(self) -> int:
        return len(self._indices)

    def path(self, index: int) -> str:
        task, position = next(iter(self._indices[index].items()))
        return self._readers[task].path(position)

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        found: dict[str, Label] = {}
        for task, position in self._indices[index].items():
            found |= self._readers[task].labels(position, image)
        return found

    def describe(self) -> str:
        parts = "; ".join(reader.describe() for reader in self._readers.values())
        return f"{len(self)} images with labels for {', '.join(self.tasks)} ({parts})"
