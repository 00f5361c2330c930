"""Several data sets over the same image files as one, whose samples carry the labels of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from ppmtl.config import Part
from ppmtl.data.findings import Finding
from ppmtl.data.reader import Reader
from ppmtl.structures import ClassList, Label


class Joined(Reader):
    """The images of several readers, each read once, with a label for every task whose reader has the image.

    BDD100K is an example: one folder of images, label PNGs for segmentation, a COCO file for detection.

    Args:
        root: where relative paths start.
        tasks: {task: its classes}; readers of other tasks are not built.
        readers: {task: reader}. Images are the same when their files are.
        images: "common" = those that all readers have; "all" = those that any has: an image that the reader of a task does
            not have carries no label for it and teaches nothing about it.

    Raises:
        ValueError: if a task has no reader, or no image is in several of them.
    """

    def __init__(
        self,
        root: str | Path,
        tasks: Mapping[str, ClassList],
        *,
        readers: dict[str, Annotated[Callable[..., Any], Part("ppmtl.data.readers")]],
        images: Literal["common", "all"] = "common",
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
        counts = Counter(file for of_task in indices.values() for file in of_task)
        common = [file for file, count in counts.items() if count == len(tasks)]
        if not common and (images == "common" or max(counts.values()) == 1):
            sizes = ", ".join(f"{task} {len(reader)}" for task, reader in self._readers.items())
            raise ValueError(
                f"joined: no image is in all data sets ({sizes} images); name the same image folder in all of them, or set "
                "images: all if some images are in only some of them. Data sets that share no image are sources of their own"
            )
        files = common if images == "common" else list(counts)
        self._left_out = len(counts) - len(files)
        # What one reader leaves out may be here by another one
        self.remarks = [remark for reader in self._readers.values() for remark in reader.remarks
                        if remark.kind != "image_left_out" or Path(remark.place).resolve() not in counts]  # fmt: skip
        if self._left_out:
            text = f"is not in the data sets of all tasks ({', '.join(tasks)}) and left out; images: all keeps it"
            self.remarks += [
                Finding(str(file), text, "note", "image_left_out") for file in counts if counts[file] < len(tasks)
            ]
        self._indices = [
            {task: of_task[file] for task, of_task in indices.items() if file in of_task} for file in files
        ]

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:
        parts = [(task, part) for task, part in settings["readers"].items() if task in tasks]
        return [path for task, part in parts for path in part.func.required_paths(root, [task], **part.keywords)]

    def __len__(self) -> int:
        return len(self._indices)

    def path(self, index: int) -> str:
        task, position = next(iter(self._indices[index].items()))
        return self._readers[task].path(position)

    def image_id(self, index: int, task: str) -> int | None:
        position = self._indices[index].get(task)
        return None if position is None else self._readers[task].image_id(position, task)

    def files(self, index: int) -> list[str]:
        found = [self._readers[task].files(position) for task, position in self._indices[index].items()]
        return list(dict.fromkeys(file for files in found for file in files))

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        found: dict[str, Label] = {}
        for task, position in self._indices[index].items():
            found |= self._readers[task].labels(position, image)
        return found

    def describe(self) -> str:
        parts = "; ".join(reader.describe() for reader in self._readers.values())
        counts = Counter(task for of_image in self._indices for task in of_image)
        labels = ", ".join(f"{task} ({counts[task]})" if counts[task] < len(self) else task for task in self.tasks)
        left_out = f", {self._left_out} that only some have left out (images: all)" if self._left_out else ""
        return f"{len(self)} images with labels for {labels}{left_out} ({parts})"
