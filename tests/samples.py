"""Samples with labels of all kinds, and short ways to look at them."""

from __future__ import annotations

import numpy as np

from ppmtl.data.labels import Boxes, ClassIndex, LabelMap
from ppmtl.structures import Label, Sample


def make_sample(
    image: np.ndarray,
    label_map: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    class_index: int | None = None,
    path: str = "a.jpg",
) -> Sample:
    """A sample with labels for "seg", "det" and "cls", as far as they are given."""
    labels: dict[str, Label] = {}
    if label_map is not None:
        labels["seg"] = LabelMap(label_map)
    if boxes is not None:
        array = np.asarray(boxes, np.float32).reshape(-1, 4)
        labels["det"] = Boxes(array, np.arange(len(array)) if classes is None else np.asarray(classes, np.int64))
    if class_index is not None:
        labels["cls"] = ClassIndex(class_index)
    return Sample(path, image, labels)


def map_of(sample: Sample) -> np.ndarray:
    """The label map of "seg"."""
    label = sample.labels["seg"]
    assert isinstance(label, LabelMap)
    return label.labels


def boxes_of(sample: Sample) -> Boxes:
    """The boxes of "det"."""
    label = sample.labels["det"]
    assert isinstance(label, Boxes)
    return label
