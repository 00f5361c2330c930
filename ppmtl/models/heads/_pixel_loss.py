"""The mean cross entropy over the labelled pixels of an image, for heads that give logits at a part of its size."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from ppmtl.models.layers import resize, trains_with_numba
from ppmtl.structures import IGNORE_LABEL


def pixel_cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, *, align_corners: bool = False) -> paddle.Tensor:
    """The mean cross entropy over labelled pixels, 0-D float32; 0 when no pixel is labelled.

    ``logits`` (B, C, h, w) are resized to ``labels`` (B, H, W) int64, where 255 is no label.
    """
    total = (_fused_sum if trains_with_numba(logits) else _sum)(logits, labels, align_corners)
    return total / paddle.clip((labels != IGNORE_LABEL).astype("float32").sum(), min=1.0)


def _sum(logits: paddle.Tensor, labels: paddle.Tensor, align_corners: bool) -> paddle.Tensor:
    logits = resize(logits.astype("float32"), labels.shape[1:], align_corners=align_corners)
    # Classes last: on CPU 1.6 times as fast as axis=1
    return F.cross_entropy(logits.transpose([0, 2, 3, 1]), labels, ignore_index=IGNORE_LABEL, reduction="sum")


def _fused_sum(logits: paddle.Tensor, labels: paddle.Tensor, align_corners: bool) -> paddle.Tensor:
    from ppmtl.models.heads._pixel_loss_cpu import (
        cross_entropy_and_gradient,
    )  # imports numba, which only training needs

    total, gradient = cross_entropy_and_gradient(logits.numpy(), labels.numpy(), IGNORE_LABEL, align_corners)
    # The gradient is known already: this is 0 and has it
    zero = (logits * paddle.to_tensor(gradient)).sum()
    return zero - zero.detach() + total
