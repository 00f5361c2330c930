"""What a format found in a data set, and the folder that is written from it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from ppmtl import tables
from ppmtl.convert import _writing
from ppmtl.convert._reading import images_below
from ppmtl.convert._writing import Item, Objects, Said
from ppmtl.data.findings import DataError, Finding
from ppmtl.files import flush, remove_folder, replace_folder
from ppmtl.structures import IGNORE_LABEL

__all__ = ["Item", "Objects", "Output"]

T = TypeVar("T")
_USE = "for a config, copy these lines, or begin it with  _base_: [configs/allinone_custom.yml, {}]"


@dataclass
class _Split:
    """What one task has in one split: the folder of its images, and {image: what is said about it}."""

    folder: Path
    said: dict[Path, Said] = field(default_factory=dict)


class Output:
    """Collects a data set and writes it in one go: ``out`` appears complete or not at all.

    Args:
        data: the folder of the data set.
        out: the folder to write.
        keep: the classes to keep, in this order; what belongs to others is left out and counted. () = those that the format
            names, or all that occur, by name.
        copy: copy the images too; else the config's paths lead to where they are.
        force: ``out`` may be there, if this tool wrote it.

    Raises:
        ValueError: if ``data`` is no folder, ``out`` exists, or one lies inside the other.
    """

    def __init__(
        self, data: Path, out: Path, keep: Sequence[str] = (), *, copy: bool = False, force: bool = False
    ) -> None:
        if not data.is_dir():
            raise ValueError(f"{data}: no such folder")
        self.data, self._out, self.keep, self._copy = data, out.resolve(), tuple(keep), copy
        if self._out.is_relative_to(data.resolve()) or data.resolve().is_relative_to(self._out):
            raise ValueError(
                f"{out}: must lie beside {data}, or its files would be taken for data; choose another --out"
            )
        if out.exists() and not (force and (out / _writing.CONFIG).is_file()):
            why = f"has no {_writing.CONFIG}, so this tool did not write it" if force else "--force replaces it"
            raise ValueError(f"{out}: exists already ({why}); choose another --out")
        self._fresh = self._out.with_name(f".{self._out.name}.new")
        self._splits: dict[tuple[str, str], _Split] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._skipped: Counter[str] = Counter()
        self._missing: list[Path] = []
        self._findings: list[Finding] = []

    def __enter__(self) -> Output:
        remove_folder(self._fresh)  # of a run that was killed
        self._fresh.mkdir(parents=True)
        return self

    def __exit__(self, *error: object) -> None:
        remove_folder(self._fresh)

    def classes(self, task: str, names: Iterable[str]) -> None:
        """The classes of a task, in order; for label maps before the first, else only where not all that occur are meant.

        Raises:
            ValueError: if one is there twice, or there are more than a label map can tell apart.
        """
        self._names[task] = tuple(names)
        if task == "seg" and len(self._names[task]) > IGNORE_LABEL:
            raise ValueError(
                f"{self.data}: a label map tells {IGNORE_LABEL} classes apart, these are {len(self._names[task])}"
            )
        if twice := [name for name, count in Counter(self._names[task]).items() if count > 1]:
            raise ValueError(f"{self.data}: class names must be there once, these are repeated: {', '.join(twice)}")

    def skip(self, reason: str, count: int = 1) -> None:
        """Counts something that is left out."""
        self._skipped[reason] += count

    @contextmanager
    def checking(self, place: object) -> Iterator[None]:
        """A ValueError in the block becomes a finding about ``place``; nothing is written then."""
        try:
            yield
        except ValueError as error:
            self._findings.append(Finding.of(str(place), error))

    def progress(self, items: Iterable[T], what: str) -> Iterable[T]:
        """The items, with a progress bar on a terminal."""
        shown: Iterable[T] = tqdm(list(items), desc=what, unit="img", leave=False, disable=None)
        return shown

    def there(self, image: Path) -> bool:
        """Whether an image that the annotations name is there; one that is not is left out and counted."""
        if not (found := image.is_file()):
            self._missing.append(image)
        return found

    def add(self, task: str, split: str, folder: Path, image: Path, said: Objects | str | np.ndarray) -> None:
        """Takes one image and what is said about it.

        Args:
            task: its name in the config: "det" or "ins" (objects), "cls" (a class) or "seg" (a label map).
            split: such as "train".
            folder: of all images of this task and split.
            image: a file below it.
            said: the objects, the name of the class, or the (H, W) uint8 label map with class numbers and 255.

        Raises:
            ValueError: if the image was there already, or a label map has a number that is no class.
        """
        part = self._splits.setdefault((task, split), _Split(folder))
        if image in part.said:
            raise ValueError(f"{image} is in split {split} twice; remove one")
        part.said[image] = None if isinstance(said, np.ndarray) else said
        if isinstance(said, np.ndarray):
            count, present = len(self._names[task]), np.flatnonzero(np.bincount(said.ravel()))
            wrong = present[(present >= count) & (present != IGNORE_LABEL)].tolist()
            if wrong:
                allowed = f"0..{count - 1} and {IGNORE_LABEL}"
                raise ValueError(f"has {wrong}, allowed are {allowed}; --classes names the classes")
            name = image.relative_to(folder).with_suffix(".png")
            _writing.write_map(self._fresh / _writing.annotations_name(task, split) / name, said)

    def write(self) -> str:
        """Writes everything and says what, with the lines for a config.

        Raises:
            DataError: with everything that was found wrong.
            ValueError: if there is nothing to write.
        """
        if self._findings:
            text = f"{len(self._findings)} entries are wrong, nothing was written; correct or remove them"
            raise DataError(str(self.data), text, self._findings)
        self._require_something()
        rows = [self._write_split(task, split) for task, split in self._splits]
        images = {key: self._folder_of(key) for key in self._splits}
        gaps = [key for key in self._splits if key[0] == "seg" and self._has_gaps(key)]
        root = self._out if self._copy else Path(os.path.commonpath([self._out, self.data.resolve()]))
        config = _writing.config_lines(root, self._out, images, gaps)
        (self._fresh / _writing.CONFIG).write_text(config, encoding="utf-8")
        for path in self._fresh.rglob("*"):
            flush(path)
        replace_folder(self._fresh, self._out)
        table = tables.columns(("task", "split", "images", "objects", "classes"), rows)
        if self._missing:
            self.skip(f"images that are not there, such as {self._missing[0]}", len(self._missing))
        left_out = [f"left out: {count} {reason}" for reason, count in sorted(self._skipped.items()) if count]
        return "\n".join(
            [table, *left_out, f"wrote {self._out}", "", _USE.format(self._out / _writing.CONFIG), "", config]
        )

    def _require_something(self) -> None:
        if not any(part.said for part in self._splits.values()):
            count = len(self._missing)
            missing = f"; {count} images are not there, such as {self._missing[0]}" if count else ""
            raise ValueError(f"{self.data}: holds nothing in this format{missing}; --help shows the layout")
        if empty := [task for task, _ in self._splits if not self._classes_of(task)]:
            raise ValueError(
                f"{self.data}: no image has an object for {empty[0]}, so there are no classes; give --classes"
            )

    def _write_split(self, task: str, split: str) -> tuple[object, ...]:
        part, names = self._splits[task, split], self._classes_of(task)
        path = self._fresh / _writing.annotations_name(task, split)
        if self._copy:
            self._copy_images(split, part)
        if task in ("cls", "seg"):
            _writing.write_classes(self._fresh / _writing.classes_name(task, split), names)
        images, objects = len(part.said), None
        if task == "cls":
            images = _writing.write_list(path, part.folder, part.said, names)
            self._skip_other("images", task, split, len(part.said) - images)
        elif task != "seg":
            objects = _writing.write_coco(path, part.folder, part.said, names)
            there = sum(len(said.items) for said in part.said.values() if isinstance(said, Objects))
            self._skip_other("objects", task, split, there - objects)
        return task, split, images, "" if objects is None else objects, len(names)

    def _skip_other(self, what: str, task: str, split: str, count: int) -> None:
        self.skip(f"{what} of other classes ({task}, {split})", count)

    def _copy_images(self, split: str, part: _Split) -> None:
        for image in self.progress(part.said, f"copy {split}"):
            target = self._fresh / "images" / split / image.relative_to(part.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(image, target)

    def _classes_of(self, task: str) -> tuple[str, ...]:
        if self.keep and task != "seg":
            return self.keep
        if task not in self._names:
            every = [said for (of, _), part in self._splits.items() if of == task for said in part.said.values()]
            found = {item.name for said in every if isinstance(said, Objects) for item in said.items}
            self._names[task] = tuple(sorted(found | {said for said in every if isinstance(said, str)}))
        return self._names[task]

    def _folder_of(self, key: tuple[str, str]) -> Path:
        return self._out / "images" / key[1] if self._copy else self._splits[key].folder.resolve()

    def _has_gaps(self, key: tuple[str, str]) -> bool:
        """Whether the folder of a split's images has some that the split does not name."""
        folder = self._fresh / "images" / key[1] if self._copy else self._splits[key].folder
        return len(images_below(folder)) > len(self._splits[key].said)
