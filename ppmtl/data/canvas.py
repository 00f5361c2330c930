"""A sample on its way through the transforms: geometry is noted, and pixels move once.

Geometric transforms only compose an affine and a window; the first transform that needs pixels (colour), or the end of
the list, moves the image and its labels in one warp. It is faster (colour runs on the crop, not on the whole image) and it
interpolates once. Labels move themselves (``data/labels.py``): no kind of label is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ppmtl.ops import affine
from ppmtl.structures import Label, Sample, Size

_TRIES = 5  # draws of another sample
IMAGE_FILL = 127  # PaddleSeg's 127.5, which its uint8 cast turns into 127


class Canvas:
    """The sample as it looks so far.

    Args:
        sample: as read.
        draw: gives another sample of the same data set for a random generator; None = there is no other.
        progress: how much of the run is over, 0..1; some transforms end before it does.

    Attributes:
        size: (height, width) of the window onto the moved image; what the next transform works on.
        interpolation: how the image will be resampled (label maps: always nearest, so no class is ever invented).
        min_visible: boxes of which a smaller share of the area is left in the window are dropped.
    """

    def __init__(
        self, sample: Sample, draw: Callable[[np.random.Generator], Sample] | None = None, progress: float = 0.0
    ) -> None:
        self._sample, self._draw, self.progress = sample, draw, progress
        self._to_window, self.size = affine.identity(), sample.size
        self.interpolation: affine.Interpolation = "linear"
        self.min_visible = 0.15  # reference/model.md section 8 recommends 10-20 %

    @property
    def boxes(self) -> np.ndarray:
        """The boxes of all labels in window coordinates, (N, 4) float32 xyxy, not clipped; (0, 4) without any."""
        objects = [label.objects() for label in self._sample.labels.values()]
        return affine.apply_to_boxes(self._to_window, np.concatenate([np.zeros((0, 4), np.float32), *objects]))

    def keep_boxes(self, mask: np.ndarray) -> None:
        """Drops the parts of labels whose entry in ``mask`` (N,) bool, in the order of ``boxes``, is False."""
        labels: dict[str, Label] = {}
        for task, label in self._sample.labels.items():
            count = len(label.objects())
            labels[task], mask = label.kept(mask[:count]), mask[count:]
        self._sample = replace(self._sample, labels=labels)

    def move(self, a: np.ndarray, size: Size) -> None:
        """Composes one geometric step: ``a`` (2, 3) from the present window to a new one of ``size``.

        A step that looks out of a window that was cropped before (a crop, then a rotation) must see padding there and
        not the image's hidden parts, whose boxes may be dropped; pixels are moved before such a step.
        """
        looks_out = not _inside(affine.invert(a), size, self.size)
        if looks_out and not _inside(self._to_window, self._sample.size, self.size):
            self._render()
        self._to_window = affine.compose(self._to_window, a)
        self.size = size

    def crop(self, corner: tuple[int, int], size: Size) -> None:
        """Moves to a window of ``size`` (height, width) whose ``corner`` (top, left) is in pixels of the present one."""
        self.move(affine.translation(-corner[1], -corner[0]), size)

    def stretch(self, size: Size) -> None:
        """Scales the window to ``size`` (height, width), not keeping the aspect."""
        self.move(affine.stretch(self.size, size), size)

    @property
    def image(self) -> np.ndarray:
        """The (H, W, 3) pixels of the window; geometry noted so far is carried out. Do not write into it."""
        return self.sample.image

    @image.setter
    def image(self, image: np.ndarray) -> None:
        assert image.shape[:2] == self.size, "a colour transform keeps the size"
        self._sample = replace(self.sample, image=image)

    @property
    def sample(self) -> Sample:
        """The sample as transformed so far, geometry carried out."""
        self._render()
        return self._sample

    @sample.setter
    def sample(self, sample: Sample) -> None:
        self._sample, self._to_window, self.size = sample, affine.identity(), sample.size

    def another(self, rng: np.random.Generator) -> Sample:
        """Reads another sample of the same data set, drawn by ``rng``, without transforms (for mosaic, mixup).

        The draw hangs on the sample's own generator, so it is the same for any number of workers and processes. A sample that
        lacks a complete label (``Label.complete``) of this one would cost both theirs, so it is drawn again, a few times.
        """
        if self._draw is None:
            raise ValueError(
                f"{self._sample.path}: a transform asks for another sample; only a training source has them"
            )
        needed = {task for task, label in self._sample.labels.items() if label.complete}
        for _ in range(_TRIES):
            other = self._draw(rng)
            if needed <= set(other.labels):
                break
        return other

    def lay(self, other: Sample, where: np.ndarray | None, image: np.ndarray) -> None:
        """Lays another sample of the window's size over this one.

        Args:
            other: its labels are joined with those of this sample (``Label.joined``).
            where: (H, W) bool, the pixels that it covers; None = both show through everywhere.
            image: (H, W, 3), what is seen then.
        """
        below, labels = self.sample.labels, {}
        for task in dict.fromkeys((*below, *other.labels)):
            upper = other.labels.get(task)
            if task in below:
                joined = below[task].joined(upper, where, self.min_visible)
            else:
                assert upper is not None
                joined = upper.joined(None, where if where is None else ~where, self.min_visible)
            if joined is not None:
                labels[task] = joined
        self.sample = replace(self._sample, image=image, labels=labels)

    def _render(self) -> None:
        sample, a = self._sample, self._to_window
        if self.size == sample.size and np.array_equal(a, affine.identity()):
            return
        image = affine.warp(sample.image, a, self.size, self.interpolation, IMAGE_FILL)
        labels = {task: label.moved(a, self.size, self.min_visible) for task, label in sample.labels.items()}
        self.sample = replace(sample, image=image, labels=labels)


Transform = Callable[[Canvas, np.random.Generator], None]


def augment(
    sample: Sample,
    transforms: Sequence[Transform],
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], Sample] | None = None,
    progress: float = 0.0,
) -> Sample:
    """The sample after all transforms, in order; every random draw comes from ``rng``.

    For ``draw`` and ``progress`` see ``Canvas``. Labels that can be said in several ways draw one of them last.
    """
    canvas = Canvas(sample, draw, progress)
    for transform in transforms:
        transform(canvas, rng)
    done = canvas.sample
    labels = {task: label.drawn(rng) for task, label in done.labels.items()}
    return done if all(label is done.labels[task] for task, label in labels.items()) else replace(done, labels=labels)


def _inside(a: np.ndarray, size: Size, window: Size) -> bool:
    """Whether an image of ``size``, moved by ``a``, lies inside a window, up to rounding."""
    x1, y1, x2, y2 = affine.apply_to_boxes(a, np.array([[0, 0, size[1], size[0]]], np.float32))[0]
    slack = 1e-6 * max(1, *window)
    return bool(min(x1, y1) >= -slack and x2 <= window[1] + slack and y2 <= window[0] + slack)
