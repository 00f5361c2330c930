"""The golden files of the YOLOR family: their formula for weights and inputs, and how their summaries are compared."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

_FOLDER = Path(__file__).parents[1] / "golden" / "yolor"
_NORM = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return found


def hv(name: str, shape: Sequence[int], low: float, high: float) -> np.ndarray:
    """Numbers in low..high that depend on the name alone, float32; the formula stands in every golden file."""
    mask, index = np.uint64(0xFFFFFFFF), np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    h = (np.uint64(zlib.crc32(name.encode())) + np.uint64(2654435761) * index) & mask
    for _ in range(2):
        h = ((h ^ (h >> np.uint64(16))) * np.uint64(0x45D9F3B)) & mask
    h ^= h >> np.uint64(16)
    return (low + (high - low) * h.astype(np.float64) / 2**32).astype(np.float32).reshape(shape)


def weight(name: str, shape: Sequence[int], gain: float = 3.0) -> np.ndarray:
    """A weight by PyTorch's name and shape, in the range that the formula gives to its kind."""
    kind = name.split(".")[-1]
    if kind == "running_mean":
        return hv(name, shape, -0.1, 0.1)
    if kind == "running_var":
        return hv(name, shape, 0.7, 1.3)
    if len(shape) == 1:
        return hv(name, shape, 0.8, 1.2) if kind.endswith("weight") else hv(name, shape, -0.2, 0.2)
    bound = gain / np.sqrt(np.prod(shape[1:]))
    return hv(name, shape, -bound, bound)


def fill(layer: nn.Layer, names: Mapping[str, str], gain: float = 3.0) -> None:
    """Fills convolutions and norms of a layer: {prefix of ours: prefix of the reference's}; every one must be named."""
    longest = sorted(names, key=len, reverse=True)
    for key, value in layer.state_dict().items():
        prefix = next((p for p in longest if p == "" or key.startswith(f"{p}.")), None)
        assert prefix is not None, f"{key} has no name in the reference"
        rest = key.removeprefix(f"{prefix}.") if prefix else key
        *path, last = rest.split(".")
        theirs = ".".join([names[prefix], *path, _NORM.get(last, last)])
        value.set_value(weight(theirs, value.shape, gain))


def assert_equals(
    values: paddle.Tensor | np.ndarray, expected: Mapping[str, Any], *, atol: float, rtol: float = 0.0
) -> None:
    """Compares with a golden block: {"shape", "data"}, or a summary with samples at flat places i * step."""
    found = np.asarray(values, np.float64)
    assert list(found.shape) == expected["shape"]
    flat = found.ravel()
    if "data" in expected:
        np.testing.assert_allclose(flat, expected["data"], rtol=rtol, atol=atol)
        return
    samples = flat[:: expected["step"]][: len(expected["samples"])]
    np.testing.assert_allclose(samples, expected["samples"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(flat[: len(expected["first"])], expected["first"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(flat[-len(expected["last"]) :], expected["last"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(flat.mean(), expected["mean"], rtol=1e-4, atol=atol)
    np.testing.assert_allclose(flat.std(), expected["std"], rtol=1e-4, atol=atol)
    np.testing.assert_allclose(np.abs(flat).sum(), expected["abs_sum"], rtol=1e-4)
