"""The files of a folder of data, listed once, and what their names say: which split, which belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ppmtl.data.classes import read_class_file
from ppmtl.data.images import SUFFIXES
from ppmtl.structures import ClassList

_SPLITS = {"train": "train(?:ing)?", "val": "val(?:id(?:ation)?)?|dev", "test": "test(?:ing)?"}
_SPLIT = re.compile("|".join(f"(?P<{name}>(?<![a-z])(?:{words})(?![a-z]))" for name, words in _SPLITS.items()))
_CLASS_FILE = re.compile(r"(class|label)(es|s)?(_?names)?(?![a-z])")


class Tree:
    """The files below a folder, hidden ones left out.

    Attributes:
        root: the folder.
        images: {folder: its image files, sorted}.
        texts, jsons: the other files that may say something.
        folders: all that hold images, directly or below them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[Path, list[Path]] = {}
        self.texts: list[Path] = []
        self.jsons: list[Path] = []
        for file in sorted(root.rglob("*")):
            if any(part.startswith(".") for part in file.relative_to(root).parts) or not file.is_file():
                continue
            suffix = file.suffix.lower()
            if suffix in SUFFIXES:
                self.images.setdefault(file.parent, []).append(file)
            elif suffix in (".txt", ".json"):
                (self.texts if suffix == ".txt" else self.jsons).append(file)
        above = {folder for file in self.images for folder in (file, *file.parents)}
        self.folders = sorted(folder for folder in above if folder == root or root in folder.parents)

    def name(self, path: Path) -> str:
        """The path as a config writes it: from the root on."""
        return path.relative_to(self.root).as_posix()

    def holder(self, names: Sequence[str], near: Path) -> Path | None:
        """The folder that some twenty of ``names`` start from, the nearest to the file ``near``."""
        some = names[:: max(1, len(names) // 20)]
        ranked = sorted(self.folders, key=lambda folder: -nearness(folder, near))
        return next((folder for folder in ranked if all((folder / name).is_file() for name in some)), None)

    def class_file(self, near: Path, least: int) -> tuple[str, ClassList] | None:
        """The name and content of a list of at least ``least`` classes, numbered from 0, beside a file or above it.

        The deepest counts; of several in a folder the one with the same ending ("classes_body" for "train_body").
        """
        ending = set(_words(near.stem)) - set(_SPLITS)
        here = [file for file in self.texts if file.parent in near.parents and _CLASS_FILE.match(file.stem.lower())]
        for file in sorted(here, key=lambda f: (-len(f.parts), ending != set(_words(f.stem)[1:]), f.stem)):
            try:
                classes = read_class_file(file)
            except ValueError:  # a file of another kind, whatever its name
                continue
            if len(classes) >= least and classes.ids == tuple(range(len(classes))):
                return self.name(file), classes
        return None

    def by_split(self, paths: Sequence[Path]) -> list[dict[str, Path]]:
        """Paths that differ in the name of their split only: {"train" and, if there is one, "val": path}, plain names first.

        "test" stands in for a missing "val"; a path without a split is for training.
        """
        groups: dict[str, dict[str, Path]] = {}
        for path in paths:
            name = self.name(path).lower()
            splits = [str(match.lastgroup) for match in _SPLIT.finditer(name)]
            groups.setdefault(_SPLIT.sub("*", name), {})[splits[-1] if splits else "train"] = path
        found = []
        for _, group in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
            val = group.get("val", group.get("test"))
            if "train" in group:
                found.append({"train": group["train"], **({"val": val} if val else {})})
        return found


def says_split(name: str) -> bool:
    """Whether a name has the word of a split in it ("train2017", "val")."""
    return _SPLIT.search(name.lower()) is not None


def nearness(a: Path, b: Path) -> int:
    """How near two paths are: leading parts that they share, names alike (train/ and train.json), few parts otherwise."""
    pairs = enumerate(zip(a.parts, b.parts, strict=False))
    shared = next((place for place, (x, y) in pairs if x != y), min(len(a.parts), len(b.parts)))
    alike = sum(part in b.stem or b.stem in part for part in a.parts[shared:])
    return 4 * shared + 2 * alike - len(a.parts)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())
