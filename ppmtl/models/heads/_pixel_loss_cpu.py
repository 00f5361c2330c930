"""The pixel cross entropy of small logits and large label maps on CPU, by numba: one pass over the pixels, row by row.

A row of the labels needs two rows of logits. They are resized to it, softmaxed, and what each pixel's class differs by is
added back to the two rows: loss and gradient in one go, and nothing of the labels' size times the classes is ever stored.
Ten times as fast as resizing, cross entropy and their gradients (docs/benchmarks.md).
"""

from __future__ import annotations

from contextlib import suppress

import numba
import numpy as np

from ppmtl.models.layers import resized_positions

# exp(x) = 2^n * exp(r) with r = x - n ln 2 and a polynomial for r (Cephes' expf, about 1 ulp); numba has no vector exp
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds to the nearest integer, so no "reassoc" below
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_ZERO, _ONE, _SMALLEST = np.float32(0), np.float32(1), np.float32(-87)  # exp(-88) is no normal float32


def cross_entropy_and_gradient(
    logits: np.ndarray, labels: np.ndarray, ignore: int, align_corners: bool
) -> tuple[float, np.ndarray]:
    """The summed cross entropy over labelled pixels of bilinearly resized logits, and its gradient.

    Args:
        logits: (B, C, h, w) float32, C-contiguous.
        labels: (B, H, W) int64 class indices.
        ignore: the label of pixels that do not count.
        align_corners: of the resize.

    Returns:
        the sum, NaN if a logit is not finite, and (B, C, h, w) float32.

    Raises:
        ValueError: if a label is no class.
    """
    gradient = np.zeros_like(logits)
    (y, y_share), (x, x_share) = (
        _places(*sides, align_corners) for sides in zip(logits.shape[2:], labels.shape[1:], strict=True)
    )
    total = float(_sum(logits, labels, ignore, y, y_share, x, x_share, gradient))
    if total < 0:
        raise ValueError(f"labels must be 0 to {logits.shape[1] - 1}, or {ignore}; got {np.unique(labels)}")
    return total, gradient


def _places(old: int, new: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Between which two of ``old`` positions each of ``new`` lies: the first's index and the second's share."""
    place = resized_positions(old, new, align_corners=align_corners)
    first = place.astype(np.int64)
    return first, (place - first).astype(np.float32)


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def _sum(logits, labels, ignore, y_first, y_share, x_first, x_share, gradient):  # type: ignore[no-untyped-def]
    batch, classes, h, w = logits.shape
    height, width = labels.shape[1:]
    line, slope = np.empty(w + 1, np.float32), np.empty(w + 1, np.float32)  # one more: the second of the last position
    values, bits = np.empty((classes, width), np.float32), np.empty(width, np.int32)
    powers = bits.view(np.float32)
    largest, total, known = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    loss = 0.0
    for b in range(batch):
        for y in range(height):
            of = labels[b, y]
            for x in range(width):
                known[x] = _ONE if of[x] != ignore else _ZERO
                if known[x] > 0 and not 0 <= of[x] < classes:
                    return -1.0
            if known.max() == 0:
                continue
            top, share = y_first[y], y_share[y]
            bottom = min(top + 1, h - 1)
            largest[:] = -np.inf
            for c in range(classes):  # resize
                row = values[c]
                for i in range(w):
                    line[i] = logits[b, c, top, i] * (_ONE - share) + logits[b, c, bottom, i] * share
                line[w] = line[w - 1]
                for x in range(width):
                    left = line[x_first[x]]
                    row[x] = left + (line[x_first[x] + 1] - left) * x_share[x]
                for x in range(width):
                    largest[x] = max(largest[x], row[x])
            for x in range(width):
                if known[x] > 0:
                    loss -= values[of[x], x] - largest[x]
            total[:] = 0
            for c in range(classes):  # softmax
                row = values[c]
                for x in range(width):
                    v = max(row[x] - largest[x], _SMALLEST)
                    n = v * _LOG2_E + _ROUND - _ROUND
                    bits[x] = (np.int32(n) + 127) << 23
                    r = v - n * _LN2_HIGH - n * _LN2_LOW
                    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
                    row[x] = p * (r * r) + (r + _ONE)
                for x in range(width):
                    row[x] *= powers[x]
                    total[x] += row[x]
            for x in range(width):
                if known[x] > 0:
                    loss += np.log(total[x])
                total[x] = known[x] / total[x]
            for c in range(classes):
                row = values[c]
                for x in range(width):
                    row[x] *= total[x]
            for x in range(width):
                if known[x] > 0:
                    values[of[x], x] -= _ONE
            for c in range(classes):  # back through the resize
                row = values[c]
                slope[:] = 0
                for x in range(width):
                    right = row[x] * x_share[x]
                    slope[x_first[x]] += row[x] - right
                    slope[x_first[x] + 1] += right
                slope[w - 1] += slope[w]
                for i in range(w):
                    gradient[b, c, top, i] += slope[i] * (_ONE - share)
                    gradient[b, c, bottom, i] += slope[i] * share
    return loss


with suppress(RuntimeError):  # no folder for numba's cache: then it is compiled anew in every run, in some seconds
    _sum.enable_caching()
