"""Classification: a text file with ``<image name> <class id>`` per line (Stanford Cars in the challenge's form)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl.data.findings import FileError, Finding, refuse
from ppmtl.data.labels import ClassIndex
from ppmtl.data.listing import read_text, require_files
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
        self._list_file = self.root / list_file
        entries = _parse(self._list_file, classes)
        self._paths = [self.root / images / name for name in entries]
        self._class_indices = np.array(list(entries.values()), np.int64)
        require_files(self._list_file, self._paths)

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        return [Path(root) / settings["images"], Path(root) / settings["list_file"]]

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        return str(self._paths[index])

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:  # noqa: ARG002
        return {self._task: ClassIndex(int(self._class_indices[index]))}

    def class_indices(self) -> np.ndarray:
        return self._class_indices

    def describe(self) -> str:
        counts = np.bincount(self._class_indices, minlength=len(self.tasks[self._task]))
        absent = int((counts == 0).sum())
        return (
            f"{self._list_file.name}: {len(self)} images of {len(counts)} classes, "
            f"{counts.min()} to {counts.max()} per class" + (f", {absent} classes without an image" if absent else "")
        )


def _parse(list_file: Path, classes: ClassList) -> dict[str, int]:
    """{image name: class index} in file order."""
    index_of = classes.index_of()
    entries: dict[str, int] = {}
    line_of: dict[str, int] = {}
    bad: list[Finding] = []
    for number, line in enumerate(read_text(list_file).splitlines(), start=1):
        if not line.strip():
            continue
        name, class_id = ["", *line.strip().rsplit(maxsplit=1)][-2:]
        if not name or not class_id.isdecimal():
            kind, problem = "bad_line", f"expected '<image name> <class id>', got {line!r}"
        elif int(class_id) not in index_of:
            kind, problem = "unknown_class", f"class id {class_id} of {name!r} is not in the class list"
        elif name in entries:
            kind, problem = "listed_twice", f"{name!r} is already on line {line_of[name]}"
        else:
            entries[name], line_of[name] = index_of[int(class_id)], number
            continue
        bad.append(Finding(f"{list_file}: line {number}", problem, kind=kind))
    if bad:
        refuse(
            list_file,
            f"{len(bad)} bad lines; ids go from {min(classes.ids)} to {max(classes.ids)} "
            f"({len(classes)} classes), each image is listed once. Correct the lines, or the class list",
            bad,
        )
    if not entries:
        raise FileError(list_file, "lists no images; write lines '<image name> <class id>'", "no_images")
    return entries
