"""Classification: a text file with ``<image name> <class id>`` per line (Stanford Cars in the challenge's form)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ppmtl.data.findings import shorten
from ppmtl.data.images import read_image
from ppmtl.data.listing import read_text, require_files, under
from ppmtl.structures import ClassList, Sample


class ImageList:
    """Pictures that a list file names, each with one class.

    Args:
        root: where relative paths start.
        classes: the classes; the list holds their ids.
        images: folder that the names in the list start from.
        list_file: lines ``name id``. Names may contain blanks: the id is what follows the last one.

    Raises:
        ValueError: listing every bad line with its number, or the missing files.
    """

    def __init__(self, root: str | Path, classes: ClassList, *, images: str, list_file: str) -> None:
        self.classes = classes
        self._list_file = under(root, list_file)
        entries = _parse(self._list_file, classes)
        folder = under(root, images)
        self._paths = [folder / name for name in entries]
        self._class_indices = np.array(list(entries.values()), np.int64)
        require_files(self._paths, self._list_file)

    @staticmethod
    def required_paths(root: str | Path, *, images: str, list_file: str, **_: object) -> list[Path]:
        """Returns the paths that must exist before the data set can be built."""
        return [under(root, images), under(root, list_file)]

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """Returns the picture file of sample ``index``."""
        return str(self._paths[index])

    def __getitem__(self, index: int) -> Sample:
        """Returns the picture with ``class_index``.

        Raises:
            ValueError: if the file cannot be read.
        """
        path = self._paths[index]
        return Sample(path=str(path), image=read_image(path), class_index=int(self._class_indices[index]))

    def class_indices(self) -> np.ndarray:
        """Returns the class index of every sample, (N,) int64, without reading pictures; for balanced sampling."""
        return self._class_indices

    def describe(self) -> str:
        """Returns one line: how many pictures, and how they spread over the classes."""
        counts = np.bincount(self._class_indices, minlength=len(self.classes))
        absent = int((counts == 0).sum())
        return (
            f"{self._list_file.name}: {len(self)} pictures of {len(self.classes)} classes, "
            f"{counts.min()} to {counts.max()} per class" + (f", {absent} classes without a picture" if absent else "")
        )


def _parse(list_file: Path, classes: ClassList) -> dict[str, int]:
    """Returns {image name: class index} in file order."""
    index_of = classes.index_of()
    entries: dict[str, int] = {}
    line_of: dict[str, int] = {}
    bad: list[str] = []
    for number, line in enumerate(read_text(list_file).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isdecimal():
            bad.append(f"line {number}: expected '<image name> <class id>', got {line!r}")
            continue
        name, class_id = parts
        if int(class_id) not in index_of:
            bad.append(f"line {number}: class id {class_id} of {name!r} is not in the class list")
        elif name in entries:
            bad.append(f"line {number}: {name!r} is already on line {line_of[name]}")
        else:
            entries[name], line_of[name] = index_of[int(class_id)], number
    if bad:
        raise ValueError(
            f"{list_file}: {len(bad)} bad lines; ids go from {min(classes.ids)} to {max(classes.ids)} "
            f"({len(classes)} classes), each picture is listed once. Correct the lines, or the class "
            f"list:\n{shorten(bad)}"
        )
    if not entries:
        raise ValueError(f"{list_file}: lists no pictures; write lines '<image name> <class id>'")
    return entries
