"""What is in a file of weights, in numbers, as documents for JSON: totals per part of a model, statistics, differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppmtl.weights.files import as_float32, dtype_name

Tensors = Mapping[str, np.ndarray]


def parts(tensors: Tensors) -> dict[str, dict[str, int]]:
    """{part of a model ("backbone", "heads.seg", ...): its tensors, their numbers, their bytes}, as they first appear."""
    totals: dict[str, dict[str, int]] = {}
    for name, array in tensors.items():
        words = name.partition("|")[0].split(".")
        part = ".".join(words[:2]) if words[0] == "heads" and len(words) > 2 else words[0]
        entry = totals.setdefault(part, {"tensors": 0, "numbers": 0, "nbytes": 0})
        for key, more in (("tensors", 1), ("numbers", array.size), ("nbytes", array.nbytes)):
            entry[key] += more
    return totals


def statistics(array: np.ndarray) -> dict[str, float]:
    """Of its finite numbers (NaN when there are none), and how many are NaN or infinite."""
    numbers = as_float32(array)
    finite = numbers[np.isfinite(numbers)]
    facts = (finite.min(), finite.max(), finite.mean(dtype=np.float64)) if finite.size else (math.nan,) * 3
    return {**dict(zip(("minimum", "maximum", "mean"), map(float, facts), strict=True)),
            "non_finite": numbers.size - finite.size}  # fmt: skip


def compare(first: Tensors, second: Tensors) -> dict[str, Any]:
    """How ``second`` differs from ``first``.

    Returns:
        "same": whether nothing differs at all; "equal": how many tensors are, in type and every number (a NaN equals a
        NaN); "missing", "unexpected": names only in the first, only in the second; "other_shape", "other_type": "name:
        this against that" (numbers of another type are compared all the same); "differing": {name: largest
        difference}, the largest first, NaN where only one of two numbers is finite.
    """
    equal, other_shape, other_type, differing = 0, [], [], {}
    for name in sorted(first.keys() & second.keys()):
        ours, theirs = first[name], second[name]
        if ours.shape != theirs.shape:
            other_shape.append(f"{name}: {list(ours.shape)} against {list(theirs.shape)}")
            continue
        types = dtype_name(ours), dtype_name(theirs)
        if types[0] != types[1]:
            other_type.append(f"{name}: {types[0]} against {types[1]}")
        if largest := _largest_difference(ours, theirs):
            differing[name] = largest
        elif types[0] == types[1]:
            equal += 1
    differing = dict(sorted(differing.items(), key=lambda item: -math.inf if math.isnan(item[1]) else -item[1]))
    missing, unexpected = sorted(first.keys() - second.keys()), sorted(second.keys() - first.keys())
    different = {"missing": missing, "unexpected": unexpected, "other_shape": other_shape, "differing": differing,
                 "other_type": other_type}  # fmt: skip
    return {"same": not any(different.values()), "equal": equal, **different}


def _largest_difference(*pair: np.ndarray) -> float:
    a, b = ((as_float32(t) if dtype_name(t) == "bfloat16" else t).astype(np.float64) for t in pair)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(difference.max(initial=0.0))
