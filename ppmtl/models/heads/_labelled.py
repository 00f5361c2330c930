"""Images without a label for a head's task: they take no part in its loss, neither in a sum nor in what it is divided by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle


def labelled_mean(losses: paddle.Tensor, labelled: paddle.Tensor) -> paddle.Tensor:
    """The mean loss of the labelled images, 0-D; 0 without any, with gradients of 0.

    Args:
        losses: (B, ...) float32, one number per image, finite also where there is no label.
        labelled: (B,) bool.
    """
    known = labelled.astype("float32")
    # Not sum / count: where all images are labelled these are the bits of a plain mean
    return (losses.reshape([-1]) * known).mean() * (known.shape[0] / paddle.clip(known.sum(), min=1.0))


def labelled_part(
    outputs: Sequence[paddle.Tensor], rows: paddle.Tensor, labelled: np.ndarray
) -> tuple[list[paddle.Tensor], paddle.Tensor]:
    """``outputs`` and ``rows`` of the batch that holds the labelled images alone; as they are where all are labelled.

    Args:
        outputs: (B, ...) each.
        rows: (M, K) float32, the first number of a row is its image, -1 = none.
        labelled: (B,) bool, at least one True.
    """
    if labelled.all():
        return list(outputs), rows
    kept = paddle.to_tensor(np.flatnonzero(labelled))
    values = rows.numpy()
    values = values[(values[:, 0] >= 0) & labelled[values[:, 0].astype(int)]]
    values[:, 0] = (np.cumsum(labelled) - 1)[values[:, 0].astype(int)]
    return [paddle.gather(output, kept) for output in outputs], paddle.to_tensor(values)


def zero_loss(outputs: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """0-D float32 zero that hangs on ``outputs``: what made them gets gradients of 0, as on processes that have labels."""
    return paddle.add_n([output.astype("float32").sum() for output in outputs]) * 0.0
