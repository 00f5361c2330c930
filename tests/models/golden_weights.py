"""Weights that a name decides, so that a reference package and ours can be given the same ones without a file."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from paddle import nn


def seeded(key: str, shape: list[int]) -> np.ndarray:
    """Returns standard normal float64 numbers that depend on the key alone (the recipe of the golden files)."""
    return np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).randn(*shape)


def parameter_count(layer: nn.Layer) -> int:
    """Returns the number of trained weights; ``parameters()`` of Paddle also lists running statistics."""
    return sum(int(np.prod(p.shape)) for p in layer.parameters() if not p.stop_gradient)


def assert_equals_summary(values: np.ndarray, expected: dict[str, Any], *, rtol: float) -> None:
    """Compares an array with a golden summary: its sums, and its first and last five numbers.

    Args:
        values: any shape.
        expected: "sum", "abs_sum", "first5", "last5"; "shape" is compared when there.
        rtol: of the sum of magnitudes; single numbers may be off by rtol of the mean magnitude besides.
    """
    values = values.astype(np.float64)
    if "shape" in expected:
        assert list(values.shape) == expected["shape"]
    mean = expected["abs_sum"] / values.size
    np.testing.assert_allclose(np.abs(values).sum(), expected["abs_sum"], rtol=rtol)
    np.testing.assert_allclose(values.sum(), expected["sum"], atol=rtol * expected["abs_sum"])
    np.testing.assert_allclose(values.ravel()[:5], expected["first5"], rtol=rtol, atol=rtol * mean)
    np.testing.assert_allclose(values.ravel()[-5:], expected["last5"], rtol=rtol, atol=rtol * mean)
