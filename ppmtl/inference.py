"""Picture -> views -> backend -> raw arrays -> predictions -> merged. The one path of evaluation, inference and deployment.

numpy only. The backend is a callable, so the training graph, Paddle Inference and ONNX Runtime are backends of one
pipeline and cannot pre- or post-process differently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ppmtl.ops import affine
from ppmtl.structures import ImageMeta, Prediction, Size
from ppmtl.tasks.base import Merge, Task, View

Backend = Callable[[np.ndarray, tuple[str, ...]], Mapping[str, Mapping[str, np.ndarray]]]
"""(images (B, H, W, 3) uint8 RGB, task names) -> {task: raw arrays}; runs the backbone once for all tasks named."""


class Pipeline:
    """Predicts pictures with any backend.

    Args:
        tasks: {name: task}.
        backend: what runs the network.
        augment: use each task's test-time-augmentation views instead of its one plain view.
        shared_size: show every task the same (height, width), so that the backbone runs once per picture; None = each
            task at its own size (tasks whose views coincide still share one run).
        batch_size: how many inputs of one size run together.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        backend: Backend,
        *,
        augment: bool = False,
        shared_size: Size | None = None,
        batch_size: int = 1,
    ) -> None:
        self.tasks, self.backend, self.batch_size = dict(tasks), backend, batch_size
        self.augment, self.shared_size = augment, shared_size

    def views(self, original: Size) -> dict[View, tuple[str, ...]]:
        """Returns {view: tasks that want it}, each task's views in its own order, for one picture."""
        wanted: dict[View, list[str]] = {}
        for name, task in self.tasks.items():
            if self.shared_size is not None and not self.augment:
                views = [View(self.shared_size)]
            else:
                views = task.views(original, augment=self.augment)
            for view in views:
                wanted.setdefault(view, []).append(name)
        return {view: tuple(names) for view, names in wanted.items()}

    def predict(self, images: Sequence[np.ndarray], paths: Sequence[str]) -> list[dict[str, Prediction]]:
        """Returns one {task: prediction in original coordinates} per picture.

        Args:
            images: (H, W, 3) uint8 RGB each; sizes may differ.
            paths: where they came from, for messages.
        """
        work: dict[tuple[View, tuple[str, ...]], list[int]] = defaultdict(list)
        alone = [dict.fromkeys(self.tasks, 0) for _ in images]  # how many views each (picture, task) has
        for index, image in enumerate(images):
            for view, names in self.views(image.shape[:2]).items():
                work[view, names].append(index)
                for name in names:
                    alone[index][name] += 1
        merges: list[dict[str, Merge]] = [{n: t.new_merge() for n, t in self.tasks.items()} for _ in images]
        for (view, names), members in work.items():
            for start in range(0, len(members), self.batch_size):
                chunk = members[start : start + self.batch_size]
                metas = [view_meta(view, images[i].shape[:2], paths[i]) for i in chunk]
                batch = np.stack([make_view(images[i], view) for i in chunk])
                raw = self.backend(batch, names)
                for row, (index, meta) in enumerate(zip(chunk, metas, strict=True)):
                    for name in names:
                        single = alone[index][name] == 1
                        merges[index][name].add(self.tasks[name].decode(raw[name], row, meta, single=single))
        return [{name: merge.result() for name, merge in of_picture.items()} for of_picture in merges]


def _to_view(view: View, original: Size) -> np.ndarray:
    (height, width), (view_height, view_width) = original, view.size
    stretch = affine.scaling(view_width / width, view_height / height)
    return affine.compose(stretch, affine.horizontal_flip(view_width)) if view.flip else stretch


def make_view(image: np.ndarray, view: View) -> np.ndarray:
    """Returns the (h, w, 3) uint8 network input that ``view`` shows of ``image``."""
    return affine.warp(image, _to_view(view, image.shape[:2]), view.size, view.interpolation, fill=0)


def view_meta(view: View, original: Size, path: str) -> ImageMeta:
    """Returns how the input made by :func:`make_view` maps back to its picture."""
    return ImageMeta(path, original, view.size, affine.invert(_to_view(view, original)))
