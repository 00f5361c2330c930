"""The rows of boxes that detection heads are trained with."""

from __future__ import annotations

import numpy as np
import paddle


def target_rows(targets: paddle.Tensor, batch: int, num_classes: int, who: str) -> np.ndarray:
    """Target rows (M, 6) [image, class, cx, cy, w, h] as (M, 6) float32 on the CPU; those of image -1 stand for no box.

    Raises:
        ValueError: naming ``who``, if a row names an image outside the batch or a class that the head does not have.
    """
    rows: np.ndarray = targets.numpy().astype(np.float32).reshape(-1, 6)
    real = rows[rows[:, 0] >= 0]
    wrong = (real[:, 0] >= batch) | (real[:, 1] < 0) | (real[:, 1] >= num_classes)
    if wrong.any():
        raise ValueError(
            f"{who}: target row {real[wrong][0].tolist()} names image {real[wrong][0, 0]:g}, class "
            f"{real[wrong][0, 1]:g}; images are 0..{batch - 1} and classes 0..{num_classes - 1}: compare the data set's "
            "classes with the head's num_classes"
        )
    return rows
