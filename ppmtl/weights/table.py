"""What is in a file of weights, in numbers: totals per part of a model, statistics, and how two files differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ppmtl.weights.files import StoredTensor


@dataclass(frozen=True)
class Part:
    """Totals of the tensors that belong together: how many, their numbers, their bytes."""

    tensors: int
    numbers: int
    nbytes: int


@dataclass(frozen=True)
class Statistics:
    """Of one tensor's finite numbers; all NaN when it has none."""

    minimum: float
    maximum: float
    mean: float
    non_finite: int


@dataclass(frozen=True)
class Comparison:
    """Two files, tensor by tensor."""

    equal: int  # in every number; a NaN equals a NaN
    missing: list[str]  # only in the first
    unexpected: list[str]  # only in the second
    other_shape: list[str]  # "name: [..] against [..]"
    differing: dict[str, float]  # {name: largest difference}, the largest first; NaN where only one of two is finite
    other_type: list[str]  # "name: float32 against bfloat16"; their numbers are compared all the same

    @property
    def same(self) -> bool:
        """Whether nothing differs at all."""
        return not (self.missing or self.unexpected or self.other_shape or self.differing or self.other_type)


def part_of(name: str) -> str:
    """The part of a model that a tensor belongs to: "backbone", "heads.seg", ..."""
    words = name.partition("|")[0].split(".")
    return ".".join(words[:2]) if words[0] == "heads" and len(words) > 2 else words[0]


def parts(tensors: Mapping[str, StoredTensor]) -> dict[str, Part]:
    """{part: totals} in the order in which parts first appear."""
    groups: dict[str, list[StoredTensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(part_of(name), []).append(tensor)
    return {
        part: Part(len(group), sum(math.prod(t.shape) for t in group), sum(t.nbytes for t in group))
        for part, group in groups.items()
    }


def statistics(tensor: StoredTensor) -> Statistics:
    """Minimum, maximum and mean of a tensor, and how many of its numbers are NaN or infinite."""
    numbers = tensor.read()
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0:
        return Statistics(math.nan, math.nan, math.nan, numbers.size)
    mean = float(finite.mean(dtype=np.float64))
    return Statistics(float(finite.min()), float(finite.max()), mean, numbers.size - finite.size)


def compare(first: Mapping[str, StoredTensor], second: Mapping[str, StoredTensor]) -> Comparison:
    """How ``second`` differs from ``first``, reading a pair of tensors at a time."""
    equal, other_shape, other_type, differing = 0, [], [], {}
    for name in sorted(first.keys() & second.keys()):
        ours, theirs = first[name], second[name]
        if ours.shape != theirs.shape:
            other_shape.append(f"{name}: {list(ours.shape)} against {list(theirs.shape)}")
            continue
        if ours.dtype != theirs.dtype:
            other_type.append(f"{name}: {ours.dtype} against {theirs.dtype}")
        largest = _largest_difference(ours, theirs)
        if largest != 0:
            differing[name] = largest
        elif ours.dtype == theirs.dtype:
            equal += 1
    largest_first = sorted(differing.items(), key=lambda item: -math.inf if math.isnan(item[1]) else -item[1])
    missing, unexpected = sorted(first.keys() - second.keys()), sorted(second.keys() - first.keys())
    return Comparison(equal, missing, unexpected, other_shape, dict(largest_first), other_type)


def _largest_difference(ours: StoredTensor, theirs: StoredTensor) -> float:
    a, b = ((t.read() if t.dtype == "bfloat16" else t.raw()).astype(np.float64) for t in (ours, theirs))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(difference.max(initial=0.0))
