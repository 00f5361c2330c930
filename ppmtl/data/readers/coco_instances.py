"""Instances: boxes with masks from a COCO annotation file."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ppmtl.data.labels import Instances
from ppmtl.data.readers import coco
from ppmtl.structures import Label


class COCOInstances(coco.COCO):
    """Images of a folder with the boxes and masks that a COCO file gives them.

    As the reader ``coco``, with ``segmentation``: polygons, or run lengths as numbers or as compressed text. They are kept as
    the file has them. An object without one is an object with a box only. Its settings and errors are those of ``coco``.
    """

    _with_masks: ClassVar[bool] = True

    def labels(self, index: int, image: np.ndarray) -> dict[str, Label]:
        """The objects; ValueError if the image's size is not the one in the annotation file."""
        entry = self._fitting(index, image)
        masks, ignored = (tuple(mask for _, _, mask in part) for part in (entry.objects, entry.ignored))
        return {self._task: Instances(*coco.arrays(entry.objects), *coco.arrays(entry.ignored), masks, ignored)}

    def describe(self) -> str:
        known = sum(mask is not None for entry in self._entries for _, _, mask in entry.objects)
        return f"{super().describe()}; {known} masks"
