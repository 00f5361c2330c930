"""Which boxes can influence one another in weighted boxes fusion: only these must be handled one after the other.

Every box gets a block, an interval in each of (x, y, width, height), such that blocks touch wherever boxes can match.
"""

from __future__ import annotations

import numpy as np

Blocks = tuple[np.ndarray, np.ndarray]  # begins and ends of the intervals, both (4, n)


def reach(boxes: np.ndarray, ranks: np.ndarray, iou_threshold: float) -> Blocks:
    """The blocks of boxes (4, n); that of a fused box lies within the hull of its members' blocks.

    Two boxes with IoU > t overlap by more than t of their union along each axis. Hence along each axis they overlap
    still when shrunk about their centres to (1 - t) of their length, and neither length is below t times the other.
    Both say that intervals overlap whose ends are linear in the box, and a fused box is a convex mean of its members.
    """
    centre, side = (boxes[:2] + boxes[2:]) / 2, boxes[2:] - boxes[:2]
    half = side * ((1 - iou_threshold) / 2)
    ratio = max(iou_threshold, 1e-18) ** 0.5
    # Fused coordinates are float32 sums: each of at most so many members adds a relative error of 2^-24 (twice, here).
    margin = 1e-6 + int(np.bincount(ranks).max()) * 2.0**-23
    return np.vstack([centre - half, side * ratio]) - margin, np.vstack([centre + half, side / ratio]) + margin


def neighbours(boxes: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each box the first box of its class whose centre lies in the same cell of a grid of 128 x 128.

    What is seen in several views is taken as one from the start, which makes the search for touching pairs short.
    """
    column, row = ((boxes[:2] + boxes[2:]) * 64).astype(np.int64)
    _, first, cell = np.unique((ranks * 129 + row) * 129 + column, return_index=True, return_inverse=True)
    result: np.ndarray = first[cell]
    return result


def hulls(owner: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, Blocks]:
    """The owners of blocks, rising, and for each the bounding block of all that it owns."""
    order = np.argsort(owner, kind="stable")
    starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
    begins = np.minimum.reduceat(blocks[0][:, order], starts, axis=1)
    return owner[order[starts]], (begins, np.maximum.reduceat(blocks[1][:, order], starts, axis=1))


def touching(ranks: np.ndarray, blocks: Blocks) -> np.ndarray:
    """(2, pairs): the indices of all pairs of blocks of one class that touch in every dimension."""
    offset = 4.0 * ranks  # classes side by side on the first axis: x is -1..2
    order = np.argsort(blocks[0][0] + offset)
    (begin, *begins), (end, *ends) = blocks[0][:, order], blocks[1][:, order]
    begin, end = begin + offset[order], end + offset[order]
    after = np.arange(1, len(order) + 1)  # candidates: the blocks that begin between this one's begin and end
    count = np.searchsorted(begin, end, side="right") - after
    first = np.repeat(after - 1, count)
    second = np.arange(len(first)) + np.repeat(after - (np.cumsum(count) - count), count)
    for begin, end in zip(begins, ends, strict=True):
        touch = np.flatnonzero((begin[first] <= end[second]) & (begin[second] <= end[first]))
        first, second = first[touch], second[touch]
    return np.stack([order[first], order[second]])


def joined(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The group of each box, named by its smallest member, after joining those of all pairs of boxes."""
    root: np.ndarray = group.copy()
    while len(first):
        a, b = root[first], root[second]
        apart = np.flatnonzero(a != b)
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        root[np.maximum(a, b)] = np.minimum(a, b)  # hangs roots under smaller ones: no cycle can form
        while not np.array_equal(root, above := root[root]):
            root = above
    return root


def turns(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, starts): the j-th box of each group, largest group first, is order[starts[j]:starts[j+1]]."""
    by_group = np.argsort(group, kind="stable")
    size = np.unique(group, return_counts=True)[1]
    turn = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    order = by_group[np.lexsort((-np.repeat(size, size), turn))]
    return order, np.concatenate([[0], np.cumsum(np.bincount(turn))])
