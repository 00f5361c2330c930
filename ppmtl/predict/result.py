"""What a model found on one image, in every form: arrays, drawn, JSON, COCO entries, rows of a table, files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ppmtl.predict.coco_results import coco_results
from ppmtl.predict.drawing import draw
from ppmtl.predict.files import write_result
from ppmtl.tasks.base import Task

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What was found on one image. ``result["det"]["boxes"]`` is an array; a notebook shows the image with all of it drawn.

    ``for task in result`` gives the tasks' names.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        path: where it came from; "" for an array.
        predictions: {task: prediction, of the task's own type}, in the image's coordinates, nothing left out.
        tasks: {name: task}, which know the classes.
        threshold: parts that score below it are left out of everything below.
    """

    image: np.ndarray
    path: str
    predictions: Mapping[str, Any]
    tasks: Mapping[str, Task[Any]]
    threshold: float
    _arrays: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __getitem__(self, task: str) -> dict[str, Any]:
        """What the task found as arrays and plain values by name; which, its type says (docs/api.md lists them).

        Raises:
            KeyError: if the task was not asked.
        """
        if task not in self.predictions:
            raise KeyError(f"{task!r}; this result has {', '.join(self.predictions)}")
        if task not in self._arrays:
            self._arrays[task] = self.tasks[task].arrays(self.predictions[task], threshold=self.threshold)
        return self._arrays[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    def plot(self) -> np.ndarray:
        """The (H, W, 3) uint8 RGB image with everything drawn on it."""
        return draw(self.image, self.predictions, self.tasks, self.threshold)

    def to_json(self) -> dict[str, Any]:
        """What ``tools/infer.py`` writes as JSON: "image", "size" [height, width] and each task's answer."""
        answers = {
            name: self.tasks[name].to_json(found, threshold=self.threshold) for name, found in self.predictions.items()
        }
        return {"image": self.path, "size": list(self.image.shape[:2]), **answers}

    def to_coco(self, image_id: int = 0) -> dict[str, list[dict[str, Any]]]:
        """{task: entries of a COCO results file}; a task for whose answers COCO has no form is left out.

        Args:
            image_id: the image's ``id`` in the COCO file that the entries go with.
        """
        return coco_results(self.predictions, self.tasks, image_id, threshold=self.threshold)

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row per object, per class that has pixels, per probable class and per sentence.

        Raises:
            ValueError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ValueError("to_pandas() needs the pandas package: pip install pandas") from error
        answers = self.to_json()
        rows = [{"image": self.path, "task": name, **row} for name in self for row in _rows(answers[name])]
        return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=["image", "task"])

    def save(self, folder: str | Path, name: str | None = None) -> Path:
        """Writes <name>.jpg (drawn), <name>.json and <name>_<task>.png per label map, as ``tools/infer.py`` does.

        Args:
            folder: made if it does not exist; files of these names are replaced.
            name: default: that of the image's file without suffix, "image" for an array.

        Returns:
            The drawn image's path.

        Raises:
            ValueError: if ``folder`` holds the image itself, which could be overwritten.
        """
        folder = Path(folder)
        if self.path and Path(self.path).resolve().parent == folder.resolve():
            raise ValueError(f"{folder} holds the image itself, which could be overwritten; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / (name or Path(self.path).stem or "image")
        write_result(target, self.image, self.predictions, self.to_json(), self.tasks, self.threshold)
        return Path(f"{target}.jpg")

    def _repr_png_(self) -> bytes:
        """The drawn image as notebooks show it."""
        return cv2.imencode(".png", self.plot()[..., ::-1])[1].tobytes()

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"<Result of {self.path or 'an array'} ({height}x{width}): {', '.join(self.predictions)}>"


def _rows(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one task's JSON: the entries of its list, else one per class and share, else all in one."""
    for value in answer.values():
        if isinstance(value, list):
            return [_flat(row) for row in value]
        if isinstance(value, Mapping):
            return [{"class": name, "share": share} for name, share in value.items()]
    return [dict(answer)]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with a column per coordinate of its box."""
    corners = dict(zip(("x1", "y1", "x2", "y2"), row.get("bbox", ()), strict=False))
    return corners | {key: value for key, value in row.items() if key != "bbox"}
