"""The values that cross room boundaries: small, frozen, checked when built.

Conventions of the whole project, said once:
    sizes are (height, width); boxes are xyxy in pixels, float32; images are HWC uint8 RGB.
    Pixel coordinates are continuous: pixel i covers [i, i + 1), its centre is i + 0.5 (the half-pixel convention
    of ``cv2.resize``), so a horizontal flip of a picture of width W is x -> W - x.

numpy only: the deployed predictor imports this file too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
        """Returns {id in the files: class index in the model}."""
        return {class_id: index for index, class_id in enumerate(self.ids)}


@dataclass
class Sample:
    """One picture with the labels that its data set has for it; what readers return and transforms change.

    Attributes:
        path: where the picture came from; every error message about the sample names it.
        image: (H, W, 3) uint8 RGB, or float32 on the same 0..255 scale when a transform leaves that range on purpose
            (random erasing paints noise that is standard normal after normalisation).
        label_map: (H, W) uint8 class indices with 255 = not labelled, or None.
        boxes: (N, 4) float32 xyxy pixels of ``image``, or None when the data set has no boxes at all. N may be 0.
        box_labels: (N,) int64 class indices, present exactly when ``boxes`` is.
        class_index: one class index for the whole picture, or None.
        image_id: the number that the annotation file gives the picture (COCO), or -1.
        ignored_boxes: (M, 4) float32 xyxy pixels of crowd regions: never a training target, but evaluation needs them.
    """

    path: str
    image: np.ndarray
    label_map: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_labels: np.ndarray | None = None
    class_index: int | None = None
    image_id: int = -1
    ignored_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    ignored_labels: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int64))

    @property
    def size(self) -> Size:
        """Returns (height, width) of the picture."""
        return int(self.image.shape[0]), int(self.image.shape[1])


@dataclass(frozen=True)
class ImageMeta:
    """How a network input came from its original picture.

    Attributes:
        path: the original picture.
        original_size: its (height, width).
        input_size: (height, width) of the network input.
        to_original: (2, 3) float64; continuous input pixel coordinates -> original ones. Resize, crop, pad, flip and
            test-time-augmentation views only compose it, so undoing them exists once, here and in ``ops/affine.py``.
    """

    path: str
    original_size: Size
    input_size: Size
    to_original: np.ndarray

    def __post_init__(self) -> None:
        if self.to_original.shape != (2, 3):
            raise ValueError(f"{self.path}: to_original must be a 2x3 affine, got shape {self.to_original.shape}")


@dataclass(frozen=True)
class Detections:
    """Boxes found in one picture, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy in original-image pixels.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 class indices.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                "Detections needs boxes (N, 4), scores (N,) and labels (N,), got "
                f"{self.boxes.shape}, {self.scores.shape} and {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def empty() -> Detections:
        """Returns zero detections."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32), np.zeros((0,), np.int64))


@dataclass(frozen=True)
class SegMap:
    """A label for every pixel of one picture.

    Attributes:
        labels: (H, W) uint8 class indices at original size.
        probs: (C, H, W) float32 class probabilities at original size, kept while views are still to be merged; else None.
    """

    labels: np.ndarray
    probs: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2:
            raise ValueError(f"SegMap needs labels (H, W), got shape {self.labels.shape}")


@dataclass(frozen=True)
class ClassProbs:
    """Class probabilities of one picture: ``probs`` (C,) float32."""

    probs: np.ndarray

    def __post_init__(self) -> None:
        if self.probs.ndim != 1:
            raise ValueError(f"ClassProbs needs probs (C,), got shape {self.probs.shape}")


Prediction = Detections | SegMap | ClassProbs
