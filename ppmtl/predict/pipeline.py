"""Image -> views -> backend -> raw arrays -> predictions -> merged. The one path of evaluation, inference and deployment.

numpy only. The backend is a callable, so the training graph, Paddle Inference and ONNX Runtime are backends of one
pipeline and cannot pre- or post-process differently.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ppmtl.data.canvas import IMAGE_FILL
from ppmtl.ops import affine
from ppmtl.structures import Size
from ppmtl.tasks.base import Merge, Task
from ppmtl.tasks.views import Slicing, View

Backend = Callable[[np.ndarray, tuple[str, ...]], Mapping[str, Mapping[str, np.ndarray]]]
"""(images (B, H, W, 3) uint8 RGB, task names) -> {task: raw arrays}; runs the backbone once for all tasks named."""

SharedSize = Size | Literal["first"] | None

_PROBE: Size = (720, 1280)  # of an image; only to compare how tasks would see it


class Pipeline:
    """Predicts images with any backend.

    Args:
        tasks: {name: task}.
        backend: what runs the network.
        augment: use each task's test-time-augmentation views instead of its one plain view.
        shared_size: None = each task sees the image at its own size, as in evaluation (tasks whose views coincide share one
            run of the backbone); else all see this (height, width), or with "first" the first task's size, and it runs once:
            see :meth:`size_note`. Without effect with ``augment``.
        batch_size: how many inputs of one size run together.
        slicing: show large images in tiles too, to the tasks that can put them together; None = full images only.

    Attributes:
        seconds: spent so far on "preprocess" (making inputs), "inference" (in the backend) and "postprocess".
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[Any]],
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
        """{view: tasks that want it}, each task's views in its own order, for one image."""
        wanted: dict[View, list[str]] = {}
        shared = None if self.augment else self.shared_size
        if shared == "first":
            shared = next(iter(self.tasks.values())).plain_size(original)
        for name, task in self.tasks.items():
            full = task.views(original, augment=self.augment)
            if shared and not any(view.window for view in full):  # tiles are shown at their own size, or not at all
                full = [View(shared)]
            for view in [*full, *(task.tiles(original, self.slicing) if self.slicing else [])]:
                wanted.setdefault(view, []).append(name)
        return {view: tuple(names) for view, names in wanted.items()}

    def size_note(self) -> str:
        """What one size for all tasks costs: which of them are evaluated otherwise; empty where none is."""
        if self.augment or self.shared_size is None:
            return ""
        first = next(iter(self.tasks.values())).plain_size(_PROBE)
        shown = View(first if self.shared_size == "first" else self.shared_size)
        others = [
            f"{name} at {_described(task)}"
            for name, task in self.tasks.items()
            if task.views(_PROBE, augment=False) != [shown]
        ]
        if not others:
            return ""
        size = "the first task's size" if self.shared_size == "first" else "{}x{}".format(*self.shared_size)
        return (
            f"every task sees {size}, so that the backbone runs once; evaluation shows {', '.join(others)}, and what these "
            "find here may be less than it measured"
        )

    def predict(self, images: Sequence[np.ndarray], paths: Sequence[str]) -> list[dict[str, Any]]:
        """One {task: its prediction in original coordinates} per image.

        The images are (H, W, 3) uint8 RGB each, of any sizes; ``paths``, where they came from, is for messages.
        """
        waiting = [_Image(image, path, self) for image, path in zip(images, paths, strict=True)]
        work: dict[tuple[Size, tuple[str, ...]], list[tuple[_Image, View]]] = defaultdict(list)
        for image in waiting:
            for view, names in image.views.items():
                work[view.size, names].append((image, view))
        for (_, names), members in work.items():
            for start in range(0, len(members), self.batch_size):
                self._run(members[start : start + self.batch_size], names)
        started = time.perf_counter()
        results = [image.result() for image in waiting]
        self.seconds["postprocess"] += time.perf_counter() - started
        return results

    def _run(self, chunk: Sequence[tuple[_Image, View]], names: tuple[str, ...]) -> None:
        started = time.perf_counter()
        batch = np.stack([make_view(image.pixels, view) for image, view in chunk])
        made = time.perf_counter()
        raw = self.backend(batch, names)
        answered = time.perf_counter()
        for row, (image, view) in enumerate(chunk):
            image.add(raw, row, view, names)
        self.seconds["preprocess"] += made - started
        self.seconds["inference"] += answered - made
        self.seconds["postprocess"] += time.perf_counter() - answered


class _Image:
    """One image on its way: its views, and what has been found in them."""

    def __init__(self, image: np.ndarray, path: str, pipeline: Pipeline) -> None:
        self.pixels, self.path, self._tasks = image, path, pipeline.tasks
        self.size: Size = (image.shape[0], image.shape[1])
        self.views = pipeline.views(self.size)
        full = Counter(name for view, names in self.views.items() if view.window is None for name in names)
        self._single = {name for name, count in full.items() if count == 1}
        self._merges: dict[str, Merge[Any]] = {name: task.new_merge() for name, task in self._tasks.items()}
        self._tiles: dict[str, list[tuple[View, Any]]] = defaultdict(list)

    def add(self, raw: Mapping[str, Mapping[str, np.ndarray]], row: int, view: View, names: tuple[str, ...]) -> None:
        """Takes the network's answer to one view: row ``row`` of ``raw``."""
        meta = view.meta(self.size, self.path)
        for name in names:
            prediction = self._tasks[name].decode(raw[name], row, meta, single=name in self._single)
            if view.window is None or self._tasks[name].merges_parts:
                self._merges[name].add(prediction)
            else:
                self._tiles[name].append((view, prediction))

    def result(self) -> dict[str, Any]:
        found = {name: merge.result() for name, merge in self._merges.items()}
        for name, tiles in self._tiles.items():
            found[name] = self._tasks[name].join_tiles(found[name], tiles, self.size)
        return found


def _described(task: Task[Any]) -> str:
    if task.input_size is not None:
        return "{}x{}".format(*task.input_size) + (" letterboxed" if task.letterbox else "")
    return f"a longer side of {task.long_side}" if task.long_side is not None else "the image's own size"


def make_view(image: np.ndarray, view: View) -> np.ndarray:
    """The (h, w, 3) uint8 network input that ``view`` shows of ``image``; padding is grey, as in training."""
    to_input = view.to_input((image.shape[0], image.shape[1]))
    return affine.warp(image, to_input, view.size, view.interpolation, fill=IMAGE_FILL)
