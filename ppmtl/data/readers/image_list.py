"""Classification: a text file with ``<image name> <class id>`` per line (Stanford Cars in the challenge's form)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.findings import DataError, Finding
from ppmtl.data.labels import ClassIndex
from ppmtl.data.listing import missing_files, read_text, under
from ppmtl.data.reader import Reader
from ppmtl.structures import ClassList, Label


class ImageList(Reader):
    """Images that a list file names, each with one class.

    Args:
        root: where relative paths start.
        tasks: the one task and its classes; the list holds their ids.
        images: folder that the names in the list start from.
        list_file: lines ``name id``. Names may contain blanks: the id is what follows the last one.

    Raises:
        DataError: with every bad line and every missing file.
    """

    def __init__(self, root: str | Path, tasks: Mapping[str, ClassList], *, images: str, list_file: str) -> None:
        super().__init__(root, tasks)
        self._task, classes = self.only_task()
        self._list_file = under(root, list_file)
        entries = _parse(self._list_file, classes)
        folder = under(root, images)
        self._paths = [folder / name for name in entries]
        self._class_indices = np.array(list(entries.values()), np.int64)
        if missing := missing_files(self._paths):
            raise DataError(
                f"{self._list_file}: {len(missing)} files are listed but missing; restore them, or remove their lines",
                missing,
            )

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        """The folder and the list."""
        return [under(root, settings["images"]), under(root, settings["list_file"])]

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """The image file of sample ``index``."""
        return str(self._paths[index])

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:  # noqa: ARG002
        """The image's class."""
        return {self._task: ClassIndex(int(self._class_indices[index]))}

    def class_indices(self) -> np.ndarray:
        """The class index of every sample, for balanced sampling."""
        return self._class_indices

    def describe(self) -> str:
        """One line: how many images, and how they spread over the classes."""
        classes = self.tasks[self._task]
        counts = np.bincount(self._class_indices, minlength=len(classes))
        absent = int((counts == 0).sum())
        return (
            f"{self._list_file.name}: {len(self)} images of {len(classes)} classes, "
            f"{counts.min()} to {counts.max()} per class" + (f", {absent} classes without an image" if absent else "")
        )


def _parse(list_file: Path, classes: ClassList) -> dict[str, int]:
    """{image name: class index} in file order."""
    index_of = classes.index_of()
    entries: dict[str, int] = {}
    line_of: dict[str, int] = {}
    bad: list[Finding] = []

    def note(number: int, problem: str) -> None:
        bad.append(Finding(f"line {number}", problem))

    for number, line in enumerate(read_text(list_file).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isdecimal():
            note(number, f"expected '<image name> <class id>', got {line!r}")
            continue
        name, class_id = parts
        if int(class_id) not in index_of:
            note(number, f"class id {class_id} of {name!r} is not in the class list")
        elif name in entries:
            note(number, f"{name!r} is already on line {line_of[name]}")
        else:
            entries[name], line_of[name] = index_of[int(class_id)], number
    if bad:
        raise DataError(
            f"{list_file}: {len(bad)} bad lines; ids go from {min(classes.ids)} to {max(classes.ids)} "
            f"({len(classes)} classes), each image is listed once. Correct the lines, or the class list",
            bad,
        )
    if not entries:
        raise ValueError(f"{list_file}: lists no images; write lines '<image name> <class id>'")
    return entries
