"""What a batch of images that were padded at right and bottom to one size means for DINO.

Source: PaddleDetection 2.6's pad_mask; the same numbers (docs/parity.md). The ViT does not know of padding, there as here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle


def of_unpadded(rows: np.ndarray, part: np.ndarray) -> paddle.Tensor:
    """Target rows (M, 6) whose boxes are shares of the images without padding.

    Args:
        rows: [image, class, cx, cy, w, h] as shares of the padded images; image -1 = none.
        part: (B, 2) share of the height and of the width of each image that is no padding.
    """
    height, width = part[np.maximum(rows[:, 0], 0).astype(int)].T
    one = np.ones_like(height)
    return paddle.to_tensor((rows / np.stack([one, one, width, height, width, height], axis=1)).astype(np.float32))


def extents(maps: Sequence[paddle.Tensor], part: np.ndarray) -> paddle.Tensor:
    """(B, L, 2) float32: columns and rows of each map (B, C, h, w) that are not all padding; ``part`` as above."""
    sides = np.array([one.shape[2:] for one in maps])
    # Rounded: a share times a side may lie a little above a whole number
    return paddle.to_tensor(np.ceil((part[:, None] * sides).round(6))[..., ::-1].astype(np.float32))
