"""Finds which boxes can influence one another: connected components of touching blocks, without an n x n table.

A block is a product of intervals, one per dimension, and touches another if they touch in every dimension. The first
dimension is swept, the second is cut into strips (both: coordinates within -1..2); the others only filter.
"""

from __future__ import annotations

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]

_GAP = 4.0  # keeps labels and strips apart on the swept axis, whose coordinates lie within -1..2
_STRIPS = 1024


class Sweep:
    """Labelled blocks, sorted once, to be asked which touch one another and which are touched by others."""

    def __init__(self, labels: np.ndarray, blocks: Pair) -> None:
        self._blocks = blocks
        # Twice the mean extent: blocks then lie in 1.5 strips on average, however their sizes are spread.
        self._height = max(2 * float((blocks[1][1] - blocks[0][1]).mean()), 3 / _STRIPS)
        self._row, self._begin, self._end = _lines(labels, blocks, self._height)

    def pairs(self) -> Pair:
        """Returns (first, second): indices of all pairs of equally labelled blocks that touch; pairs may repeat."""
        row, begin = self._row, self._begin
        after = np.arange(1, len(row) + 1)
        first, second = _expand(after, np.searchsorted(begin, self._end, side="right") - after)
        return _touching(row[first], row[second], self._blocks, self._blocks)

    def touched_by(self, labels: np.ndarray, blocks: Pair) -> Pair:
        """Returns (index of other, index): all pairs of one of these other blocks and an equally labelled one here."""
        row, begin, end = _lines(labels, blocks, self._height)
        # Either ours begins within theirs, or theirs begins (strictly later) within ours.
        start = np.searchsorted(self._begin, begin, side="left")
        theirs, ours = _expand(start, np.searchsorted(self._begin, end, side="right") - start)
        start = np.searchsorted(begin, self._begin, side="right")
        ours_too, theirs_too = _expand(start, np.searchsorted(begin, self._end, side="right") - start)
        theirs, ours = np.concatenate([theirs, theirs_too]), np.concatenate([ours, ours_too])
        return _touching(row[theirs], self._row[ours], blocks, self._blocks)


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the number 0, 1, ... of the connected component of each of ``count`` nodes, given edges."""
    root = np.arange(count)
    while len(first):
        a, b = root[first], root[second]
        apart = np.flatnonzero(a != b)
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        root[np.maximum(a, b)] = np.minimum(a, b)  # hangs roots under smaller ones: no cycle can form
        while not np.array_equal(root, above := root[root]):
            root = above
    number: np.ndarray = (np.cumsum(root == np.arange(count)) - 1)[root]
    return number


def _lines(labels: np.ndarray, blocks: Pair, height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row, begin, end), sorted by begin: a block's interval on one long axis, once per strip that it meets."""
    top, bottom = ((edge[1] / height).astype(np.int64) + 1 for edge in blocks)
    row, strip = _expand(top, bottom - top + 1)
    offset = _GAP * (labels[row] * (_STRIPS + 2) + strip)
    begin = blocks[0][0][row] + offset
    order = np.argsort(begin)
    row = row[order]
    return row, begin[order], (blocks[1][0][row] + offset[order])


def _expand(start: np.ndarray, length: np.ndarray) -> Pair:
    """Returns (row, column) of all columns start[row] ... start[row] + length[row] - 1; lengths below 0 count as 0."""
    length = np.maximum(length, 0)
    row = np.repeat(np.arange(len(length)), length)
    return row, np.arange(len(row)) + np.repeat(start - (np.cumsum(length) - length), length)


def _touching(a: np.ndarray, b: np.ndarray, blocks_a: Pair, blocks_b: Pair) -> Pair:
    """Returns those of the candidate pairs, whose first intervals are known to touch, that do so in the other axes."""
    for begin_a, end_a, begin_b, end_b in list(zip(*blocks_a, *blocks_b, strict=True))[1:]:
        touch = np.flatnonzero((begin_a[a] <= end_b[b]) & (begin_b[b] <= end_a[a]))
        a, b = a[touch], b[touch]
    return a, b
