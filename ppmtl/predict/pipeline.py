"""Picture -> views -> backend -> raw arrays -> predictions -> merged. The one path of evaluation, inference and deployment.

numpy only. The backend is a callable, so the training graph, Paddle Inference and ONNX Runtime are backends of one
pipeline and cannot pre- or post-process differently.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from ppmtl.ops import affine
from ppmtl.structures import ImageMeta, Prediction, Size
from ppmtl.tasks.base import Merge, Slicing, Task, View

Backend = Callable[[np.ndarray, tuple[str, ...]], Mapping[str, Mapping[str, np.ndarray]]]
"""(images (B, H, W, 3) uint8 RGB, task names) -> {task: raw arrays}; runs the backbone once for all tasks named."""

SharedSize = Size | Literal["first"] | None


class Pipeline:
    """Predicts pictures with any backend.

    Args:
        tasks: {name: task}.
        backend: what runs the network.
        augment: use each task's test-time-augmentation views instead of its one plain view.
        shared_size: show every task the same (height, width), so that the backbone runs once per picture; "first" = the
            size at which the first task wants the picture; None = each task at its own size (tasks whose views coincide
            still share one run). Without effect when ``augment`` is on.
        batch_size: how many inputs of one size run together.
        slicing: show large pictures in tiles too, to the tasks that can put them together; None = whole pictures only.

    Attributes:
        seconds: spent so far on "preprocess" (making inputs), "inference" (in the backend) and "postprocess".
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        backend: Backend,
        *,
        augment: bool = False,
        shared_size: SharedSize = None,
        batch_size: int = 1,
        slicing: Slicing | None = None,
    ) -> None:
        self.tasks, self.backend, self.batch_size = dict(tasks), backend, batch_size
        self.augment, self.shared_size, self.slicing = augment, shared_size, slicing
        self.seconds = {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0}

    def views(self, original: Size) -> dict[View, tuple[str, ...]]:
        """Returns {view: tasks that want it}, each task's views in its own order, for one picture."""
        wanted: dict[View, list[str]] = {}
        shared = self.shared_size
        if shared == "first":
            shared = next(iter(self.tasks.values())).plain_size(original)
        for name, task in self.tasks.items():
            whole = [View(shared)] if shared and not self.augment else task.views(original, augment=self.augment)
            for view in [*whole, *(task.tiles(original, self.slicing) if self.slicing else [])]:
                wanted.setdefault(view, []).append(name)
        return {view: tuple(names) for view, names in wanted.items()}

    def predict(self, images: Sequence[np.ndarray], paths: Sequence[str]) -> list[dict[str, Prediction]]:
        """Returns one {task: prediction in original coordinates} per picture.

        Args:
            images: (H, W, 3) uint8 RGB each; sizes may differ.
            paths: where they came from, for messages.
        """
        pictures = [_Picture(image, path, self) for image, path in zip(images, paths, strict=True)]
        work: dict[tuple[Size, tuple[str, ...]], list[tuple[_Picture, View]]] = defaultdict(list)
        for picture in pictures:
            for view, names in picture.views.items():
                work[view.size, names].append((picture, view))
        for (_, names), members in work.items():
            for start in range(0, len(members), self.batch_size):
                self._run(members[start : start + self.batch_size], names)
        started = time.perf_counter()
        results = [picture.result() for picture in pictures]
        self.seconds["postprocess"] += time.perf_counter() - started
        return results

    def _run(self, chunk: Sequence[tuple[_Picture, View]], names: tuple[str, ...]) -> None:
        started = time.perf_counter()
        batch = np.stack([make_view(picture.image, view) for picture, view in chunk])
        made = time.perf_counter()
        raw = self.backend(batch, names)
        answered = time.perf_counter()
        for row, (picture, view) in enumerate(chunk):
            picture.add(raw, row, view, names)
        self.seconds["preprocess"] += made - started
        self.seconds["inference"] += answered - made
        self.seconds["postprocess"] += time.perf_counter() - answered


class _Picture:
    """One picture on its way: its views, and what has been found in them."""

    def __init__(self, image: np.ndarray, path: str, pipeline: Pipeline) -> None:
        self.image, self.path, self._tasks = image, path, pipeline.tasks
        self.size: Size = (int(image.shape[0]), int(image.shape[1]))
        self.views = pipeline.views(self.size)
        whole = Counter(name for view, names in self.views.items() if view.window is None for name in names)
        self._single = {name for name, count in whole.items() if count == 1}
        self._merges: dict[str, Merge] = {name: task.new_merge() for name, task in self._tasks.items()}
        self._tiles: dict[str, list[tuple[View, Prediction]]] = defaultdict(list)

    def add(self, raw: Mapping[str, Mapping[str, np.ndarray]], row: int, view: View, names: tuple[str, ...]) -> None:
        """Takes the network's answer to one view: row ``row`` of ``raw``."""
        meta = view_meta(view, self.size, self.path)
        for name in names:
            prediction = self._tasks[name].decode(raw[name], row, meta, single=name in self._single)
            if view.window is None:
                self._merges[name].add(prediction)
            else:
                self._tiles[name].append((view, prediction))

    def result(self) -> dict[str, Prediction]:
        """Returns {task: prediction}."""
        found = {name: merge.result() for name, merge in self._merges.items()}
        for name, tiles in self._tiles.items():
            found[name] = self._tasks[name].join_tiles(found[name], tiles, self.size)
        return found


def _to_view(view: View, original: Size) -> np.ndarray:
    x1, y1, x2, y2 = view.window or (0, 0, original[1], original[0])
    height, width = view.size
    stretch = affine.compose(affine.translation(-x1, -y1), affine.scaling(width / (x2 - x1), height / (y2 - y1)))
    return affine.compose(stretch, affine.horizontal_flip(width)) if view.flip else stretch


def make_view(image: np.ndarray, view: View) -> np.ndarray:
    """Returns the (h, w, 3) uint8 network input that ``view`` shows of ``image``."""
    return affine.warp(image, _to_view(view, image.shape[:2]), view.size, view.interpolation, fill=0)


def view_meta(view: View, original: Size, path: str) -> ImageMeta:
    """Returns how the input made by :func:`make_view` maps back to its picture."""
    return ImageMeta(path, original, view.size, affine.invert(_to_view(view, original)))
