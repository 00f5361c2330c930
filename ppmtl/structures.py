"""The values that cross room boundaries: small, frozen, checked when built.

Conventions of the whole project, said once:
    sizes are (height, width); boxes are xyxy in pixels, float32; images are HWC uint8 RGB.
    Pixel coordinates are continuous: pixel i covers [i, i + 1), its centre is i + 0.5 (the half-pixel convention
    of ``cv2.resize``), so a horizontal flip of an image of width W is x -> W - x.

numpy only: the deployed predictor imports this file too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

IGNORE_LABEL = 255  # "not labelled" in every 8-bit label map of the challenge (reference: BDD100K label format)

Size = tuple[int, int]


@dataclass(frozen=True)
class FeatureSpec:
    """What a backbone promises about one of its outputs: ``channels`` maps, one cell per ``stride`` input pixels."""

    channels: int
    stride: int


@dataclass(frozen=True)
class ClassList:
    """The classes of one task: position = the model's class index; ``ids`` = the numbers used in the user's files.

    For segmentation and classification ids are 0..n-1. COCO files may number their categories with gaps, so detection
    keeps both and translates at its border.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a class list needs at least one class, got none")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(len(self.names))))
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.ids)} class ids")
        if len(set(self.ids)) != len(self.ids):
            twice = sorted({i for i in self.ids if self.ids.count(i) > 1})
            raise ValueError(f"class ids must be unique, got {twice} more than once")

    def __len__(self) -> int:
        return len(self.names)

    def index_of(self) -> dict[int, int]:
        """{id in the files: class index in the model}."""
        return {class_id: index for index, class_id in enumerate(self.ids)}


class Label(ABC):
    """What a data set says about one image for one task: a value that knows how to move itself.

    The kinds that exist are in ``ppmtl/data/labels.py``. The canvas and the transforms use only what is declared here, so a
    new kind of label is one class and no edit elsewhere. Labels are immutable: every method returns a new one.

    Attributes:
        complete: what such a label does not list is not in the image. An image of several (a mosaic) then has a label only
            where each of them has one.
    """

    complete: ClassVar[bool] = False

    @abstractmethod
    def moved(self, a: np.ndarray, size: Size, min_visible: float) -> Label:
        """This label after the image was moved.

        Args:
            a: (2, 3) float64 affine, continuous image pixel coordinates -> those of the new window.
            size: (height, width) of the new window.
            min_visible: parts (boxes) of which a smaller share of the area lies in the window are dropped.
        """

    def objects(self) -> np.ndarray:
        """The boxes of this label's parts, (N, 4) float32 xyxy pixels; (0, 4) for a label without parts."""
        return np.zeros((0, 4), np.float32)

    def class_counts(self, num_classes: int) -> np.ndarray | None:  # noqa: ARG002
        """How much of every class this label has, (num_classes,) int64: parts, pixels, or 1 for a class of the image.

        None for a label that has no classes (sentences).
        """
        return None

    def kept(self, mask: np.ndarray) -> Label:  # noqa: ARG002
        """This label with only those parts whose entry in ``mask`` (N,) bool, in the order of ``objects``, is True."""
        return self

    def regions(self, size: Size) -> list[np.ndarray]:  # noqa: ARG002
        """The pixels of every part, in the order of ``objects``, (H, W) uint8 each; [] for a label that knows none."""
        return []

    def joined(self, other: Label | None, where: np.ndarray | None, min_visible: float) -> Label | None:  # noqa: ARG002
        """The label of this image with another one laid over it; None where nothing true can be said about both.

        Args:
            other: the other image's label for the same task and of the same size; None = it has none.
            where: (H, W) bool, the pixels at which the other image covers this one; None = both show through everywhere.
            min_visible: parts of which a smaller share is left uncovered are dropped.
        """
        return None

    def drawn(self, rng: np.random.Generator) -> Label:  # noqa: ARG002
        """One of several ways to say the same, for a label that has them; called once, after the transforms."""
        return self


@dataclass
class Sample:
    """One image with the labels that its data set has for it; what readers return and transforms change.

    Attributes:
        path: where the image came from; every error message about the sample names it.
        image: (H, W, 3) uint8 RGB, or float32 on the same 0..255 scale when a transform leaves that range on purpose
            (random erasing paints noise that is standard normal after normalisation).
        labels: {task: label}; a task without a label for this image is absent.
        valid: (height, width) of the real image at the top left, where a batch of several sizes padded it; None = all of it.
    """

    path: str
    image: np.ndarray
    labels: Mapping[str, Label] = field(default_factory=dict)
    valid: Size | None = None

    @property
    def size(self) -> Size:
        """(height, width) of the image."""
        return int(self.image.shape[0]), int(self.image.shape[1])


@dataclass(frozen=True)
class ImageMeta:
    """How a network input came from its original image.

    Attributes:
        path: the original image.
        original_size: its (height, width).
        input_size: (height, width) of the network input.
        to_original: (2, 3) float64; continuous input pixel coordinates -> original ones. Views only
            compose it, so undoing one exists once, here and in ``ops/affine.py``.
    """

    path: str
    original_size: Size
    input_size: Size
    to_original: np.ndarray

    def __post_init__(self) -> None:
        if self.to_original.shape != (2, 3):
            raise ValueError(f"{self.path}: to_original must be a 2x3 affine, got shape {self.to_original.shape}")
