"""What a reader is: a data set on disk, as images with labels. The readers are in ``ppmtl/data/readers``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.findings import Finding
from ppmtl.data.images import read_image
from ppmtl.structures import ClassList, Label, Sample


class Reader(ABC):
    """A labelled data set. Its keyword-only constructor arguments are its config keys.

    Args:
        root: where relative paths start.
        tasks: {task: its classes} of the tasks that the data set is to have labels for.

    Attributes:
        remarks: what is odd about lists and annotations without being an error.

    Raises:
        DataError: if its lists or annotations are wrong; the error holds every finding.
    """

    def __init__(self, root: str | Path, tasks: Mapping[str, ClassList]) -> None:
        self.root, self.tasks = Path(root), dict(tasks)
        self.remarks: list[Finding] = []

    @staticmethod
    @abstractmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:
        """The paths that must exist before it can be built for these tasks; ``settings`` are the constructor's."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def path(self, index: int) -> str:
        """The image file of a sample, without reading it."""

    def image_id(self, index: int, task: str) -> int | None:  # noqa: ARG002
        """The number by which result files of a task call the image: that of the annotation file, else counted from 1.

        None if the image is not in the task's data set.
        """
        return index + 1

    def files(self, index: int) -> list[str]:
        """All files of a sample that are read for it, the image first."""
        return [self.path(index)]

    @abstractmethod
    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        """{task: label} of sample ``index``, whose image (H, W, 3) uint8 was read already.

        Raises:
            ValueError: if a label file cannot be read, holds what is not allowed or does not fit the image's size; the
                message names it.
        """

    @abstractmethod
    def describe(self) -> str:
        """One line with counts."""

    def __getitem__(self, index: int) -> Sample:
        """The image with its labels; ValueError naming the file if one is unreadable or wrong."""
        path = self.path(index)
        image = read_image(path)
        return Sample(path, image, self.labels(index, image))

    def class_indices(self) -> np.ndarray | None:
        """The class index of every sample, (N,) int64, without reading images; None where there is no single class."""
        return None

    def scan(self) -> Iterator[Finding]:
        """What is odd about lists and annotations, whose errors the constructor raised; then every sample that is wrong."""
        yield from self.remarks
        for index in range(len(self)):
            try:
                self[index]
            except ValueError as error:
                yield Finding.of(self.path(index), error)

    def only_task(self) -> tuple[str, ClassList]:
        """The one task of a reader that has labels for one, and its classes; ValueError if it was given several."""
        if len(self.tasks) != 1:
            raise ValueError(
                f"{type(self).__name__} has labels for one task, got {', '.join(self.tasks) or 'none'}; give every task "
                "a data set of its own, or join several with type: joined"
            )
        return next(iter(self.tasks.items()))


class Excerpt(Reader):
    """Some samples of another reader."""

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        super().__init__(reader.root, reader.tasks)
        self._reader, self._indices = reader, list(indices)

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        return []

    def __len__(self) -> int:
        return len(self._indices)

    def path(self, index: int) -> str:
        return self._reader.path(self._indices[index])

    def image_id(self, index: int, task: str) -> int | None:
        return self._reader.image_id(self._indices[index], task)

    def files(self, index: int) -> list[str]:
        return self._reader.files(self._indices[index])

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        return self._reader.labels(self._indices[index], image)

    def describe(self) -> str:
        return f"{len(self)} of {self._reader.describe()}"
