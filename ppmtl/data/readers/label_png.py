"""Semantic segmentation: one image file and one PNG with class numbers per sample (BDD100K, Cityscapes train ids)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ppmtl.data.findings import FileError, Finding, refuse
from ppmtl.data.images import SUFFIXES
from ppmtl.data.label_maps import read_label_map
from ppmtl.data.labels import LabelMap
from ppmtl.data.reader import Reader
from ppmtl.structures import IGNORE_LABEL, ClassList, Label

_NO_CLASS = -1


class LabelPNG(Reader):
    """Images and label maps of two folders, paired by name.

    ``images/a/b.jpg`` belongs to ``labels/a/b<label_suffix>.png``. Pairing by name, because pairing by sorted position
    shifts every later pair when one file is missing.

    Args:
        root: where relative paths start.
        tasks: the one task and its classes; label maps hold their indices 0..n-1, and 255 for "not labelled".
        images: folder of images, searched with its sub-folders.
        labels: folder of label maps.
        label_suffix: what a label's name has after the image's, e.g. "_train_id".
        missing_labels: images without a label map are an "error", or left out and counted ("skip"). A label map without
            an image is always an error.
        values: {class: the numbers that mean it in the files [label values]}, for files with more or other numbers than the
            classes; None = the numbers are the classes' indices.

    Raises:
        ValueError: if ids are not 0..n-1, or ``values`` does not name every class once with numbers of its own.
        DataError: with every file that has no partner.
    """

    def __init__(
        self,
        root: str | Path,
        tasks: Mapping[str, ClassList],
        *,
        images: str,
        labels: str,
        label_suffix: str = "",
        missing_labels: Literal["error", "skip"] = "error",
        values: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(root, tasks)
        self._task, classes = self.only_task()
        if classes.ids != tuple(range(len(classes))):
            raise ValueError(
                f"label maps need classes numbered 0..{len(classes) - 1}, got ids {list(classes.ids)}; renumber the "
                "class file and the label maps"
            )
        self._name = labels
        self._index_of = _index_of(classes, values)
        skip = missing_labels == "skip"
        self._pairs, self.remarks = _pair(self.root / images, self.root / labels, label_suffix + ".png", skip=skip)

    @staticmethod
    def required_paths(root: str | Path, tasks: Sequence[str], **settings: Any) -> list[Path]:  # noqa: ARG004
        return [Path(root) / settings["images"], Path(root) / settings["labels"]]

    def __len__(self) -> int:
        return len(self._pairs)

    def path(self, index: int) -> str:
        return str(self._pairs[index][0])

    def files(self, index: int) -> list[str]:
        return [str(path) for path in self._pairs[index]]

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        """The label map.

        Raises:
            ValueError: if it cannot be read, its size is not the image's, or a label is neither a class nor 255.
        """
        image_path, label_path = self._pairs[index]
        label_map = read_label_map(label_path)
        if image.shape[:2] != label_map.shape:
            raise FileError(
                label_path,
                f"label map of (height, width) {label_map.shape} for the image {image_path} of "
                f"{image.shape[:2]} (after its EXIF rotation, if it has one); export the two at the same size and "
                "orientation",
                "size_mismatch",
            )
        counts = cv2.calcHist([label_map], [0], None, [256], [0, 256]).reshape(-1).astype(int)
        wrong = [number for number in np.flatnonzero(counts).tolist() if self._index_of[number] == _NO_CLASS]
        if wrong:
            raise FileError(
                label_path,
                f"labels {wrong} are no classes, allowed are {_spelt(np.flatnonzero(self._index_of >= 0))} "
                f"({IGNORE_LABEL} = not labelled); convert the labels (BDD100K and Cityscapes ship 'train id' files), say in "
                "the reader's values which numbers mean which class, or add the classes to the class list. Found "
                f"{', '.join(f'{number} ({counts[number]} px)' for number in wrong)}",
                "label_value",
            )
        return {self._task: LabelMap(cv2.LUT(label_map, self._index_of.astype(np.uint8)))}

    def describe(self) -> str:
        skipped = f" ({len(self.remarks)} without one left out)" if self.remarks else ""
        return f"{self._name}: {len(self)} images with label maps{skipped}, {len(self.tasks[self._task])} classes"


def _index_of(classes: ClassList, values: Mapping[str, Sequence[int]] | None) -> np.ndarray:
    """(256,) int16: the class index of every number in a file, 255 for 255, ``_NO_CLASS`` for numbers that mean nothing."""
    given = {name: (index,) for index, name in enumerate(classes.names)} if values is None else values
    if sorted(given) != sorted(classes.names):
        raise ValueError(
            f"values must name every class once; missing {', '.join(set(classes.names) - set(given)) or 'none'}, not in the "
            f"class list {', '.join(set(given) - set(classes.names)) or 'none'}"
        )
    table = np.full(256, _NO_CLASS, np.int16)
    table[IGNORE_LABEL] = IGNORE_LABEL
    for index, name in enumerate(classes.names):
        for number in given[name]:
            if not 0 <= number < IGNORE_LABEL or table[number] != _NO_CLASS:
                raise ValueError(
                    f"values of class '{name}': {number} must be 0..{IGNORE_LABEL - 1} and mean one class only; "
                    f"{IGNORE_LABEL} always means not labelled"
                )
            table[number] = index
    return table


def _spelt(numbers: np.ndarray) -> str:
    """0..18 or 0, 3, 7, 255."""
    if len(numbers) and numbers[-1] == IGNORE_LABEL and np.array_equal(numbers[:-1], np.arange(len(numbers) - 1)):
        return f"0..{len(numbers) - 2} and {IGNORE_LABEL}"
    return ", ".join(map(str, numbers.tolist()))


def _pair(images: Path, labels: Path, label_end: str, *, skip: bool) -> tuple[list[tuple[Path, Path]], list[Finding]]:
    """(image, label map) by name, and a note on every image left out because it has none and ``skip`` allows it."""
    image_of = _by_key(images, SUFFIXES, "")
    label_of = _by_key(labels, (".png",), label_end)
    if not image_of:
        raise ValueError(f"{images}: no images ({', '.join(SUFFIXES)}) found; check the folder")
    unlabelled = sorted(image_of.keys() - label_of)
    if len(unlabelled) == len(image_of):
        skip = False  # a wrong folder or label_suffix, not a gap
    gaps = [
        Finding(str(image_of[key]), f"no label {labels / key}{label_end}", kind="missing_label") for key in unlabelled
    ]
    alone = [] if skip else gaps
    alone += [
        Finding(f"{label_of[key]}", f"no image {images / key}.*", kind="label_without_image")
        for key in sorted(label_of.keys() - image_of)
    ]
    if alone:
        refuse(
            f"{images} and {labels}",
            f"{len(alone)} files have no partner of the same name; add or remove them, set label_suffix if label names have "
            "an ending, or missing_labels: skip to leave out images without one",
            alone,
        )
    skipped = [
        replace(f, problem=f"{f.problem}; left out", severity="note", kind="image_left_out") for f in gaps if skip
    ]
    return [(image_of[key], label_of[key]) for key in sorted(image_of.keys() & label_of)], skipped


def _by_key(folder: Path, suffixes: tuple[str, ...], ending: str) -> dict[str, Path]:
    """{path below ``folder`` without its ending: file}."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        # "._a.jpg" are not images (macOS)
        if file.suffix.lower() not in suffixes or file.name.startswith(".") or not file.name.endswith(ending):
            continue
        key = file.relative_to(folder).as_posix()[: -len(ending or file.suffix)]
        if key in found:
            problem = f"{found[key]} has this name too, one label cannot serve both; remove one"
            refuse(folder, "two files of one name", [Finding(str(file), problem, kind="two_of_one_name")])
            continue
        found[key] = file
    return found
