"""Which boxes fuse: the sequential rule of weighted boxes fusion, done for many groups of boxes at once.

The rule (best box first: join the fused box of largest IoU, or found a new one) only ever compares boxes that can reach
one another. So boxes are split into groups that cannot, and all groups advance in lockstep: step j handles the j-th
best box of each.

Throughout, a box is held as corners (x1, y1, -x2, -y2): one np.maximum then intersects two boxes, and rounding is
symmetric, so negation changes no bit. A block is an interval per dimension, see separate.py.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ppmtl.ops.separate import Pair, Sweep, components

Clusters = tuple[np.ndarray, np.ndarray, np.ndarray]


def cluster_boxes(labels: np.ndarray, corners: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Clusters:
    """Returns (founder, fused, score_sum): what box opened each one's cluster; per founder fused corners, score sum.

    Groups are the components of boxes that can match one another. That is a guess, since a fused box lies between its
    members and may reach a box that none of them reaches. So it is checked afterwards: no cluster's bounding block may
    touch a box of another group. Where one does, those groups are joined and done again.

    Args:
        labels: (n,) int 0..; only boxes of one label can fuse. Within a label, boxes come in the order of handling.
        corners: (n, 4) float64 (x1, y1, -x2, -y2), coordinates 0..1.
        scores: (n,) float64, weighted.
        iou_threshold: 0..1; exceeded strictly, a box joins.

    Returns:
        founder (n,) indices; fused (n, 4) and score_sum (n,), meaningful where founder[i] == i.
    """
    if scores.min() <= 0:
        # A score of 0 can fuse to NaN, which attracts every later box of its class: no box is out of reach.
        return _lockstep(labels, corners, scores, iou_threshold)
    blocks = _reach(labels, corners, iou_threshold)
    _, first, cell = np.unique(_cells(labels, corners), return_index=True, return_inverse=True)
    sweep = Sweep(labels[first], _hulls(cell, np.arange(len(cell)), blocks))
    group = components(len(first), *sweep.pairs())  # of each cell
    founder, fused, score_sum = _lockstep(group[cell], corners, scores, iou_threshold)
    doubtful = np.arange(len(scores))
    while True:
        merged = _joined_groups(founder, doubtful, labels, blocks, sweep, cell, group)
        again = np.bincount(merged) > 1
        group, doubtful = merged[group], np.flatnonzero(again[merged[group[cell]]])
        if not len(doubtful):
            return founder, fused, score_sum
        subgroup = np.unique(group[cell[doubtful]], return_inverse=True)[1]
        part = _lockstep(subgroup, corners[doubtful], scores[doubtful], iou_threshold)
        founder[doubtful], fused[doubtful], score_sum[doubtful] = doubtful[part[0]], part[1], part[2]


def _joined_groups(
    founder: np.ndarray,
    doubtful: np.ndarray,
    labels: np.ndarray,
    blocks: Pair,
    sweep: Sweep,
    cell: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    """Returns the new number of each group, after joining those that a cluster of doubtful boxes reaches."""
    size = np.bincount(founder[doubtful], minlength=len(founder))
    several = np.flatnonzero(size > 1)  # a cluster of one reaches what its box reaches: known already
    hulls = _hulls(founder, doubtful[size[founder[doubtful]] > 1], blocks)
    cluster, touched = sweep.touched_by(labels[several], hulls)
    return components(int(group.max()) + 1, group[cell[several[cluster]]], group[touched])


def _cells(labels: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Returns a number per box that is shared by boxes of one label, nearly one place and nearly one size.

    Such boxes (the same object in several views) can match anyway; taken as one they make the search for pairs short.
    """
    low, high = corners.T[:2], -corners.T[2:]
    band = np.floor(np.log2(np.maximum(high - low, 2.0**-12)) * 1.5)  # -18..0: sizes within a factor of 1.6
    place = ((low + high) * np.exp2(band / -1.5)).astype(np.int64)  # centres within half a size: below 2^13
    band = band.astype(np.int64) + 31
    key: np.ndarray = (((labels << 14 | place[0]) << 14 | place[1]) << 5 | band[0]) << 5 | band[1]
    return key


def _reach(labels: np.ndarray, corners: np.ndarray, iou_threshold: float) -> Pair:
    """Returns (begins, ends), each (4, n): blocks in (x, y, width, height) that touch wherever two boxes can match.

    Two boxes with IoU > t overlap by more than t of their union along each axis. Hence along each axis they overlap
    still when shrunk about their centres to (1 - t) of their length, and neither length is below t times the other.
    Both say that intervals overlap whose ends are linear in the box; a fused box is a convex mean of its members, so
    its block lies within the bounding block of theirs.
    """
    low, high = corners.T[:2], -corners.T[2:]
    centre, side = (low + high) / 2, high - low
    reach = side * ((1 - iou_threshold) / 2)
    ratio = max(iou_threshold, 1e-18) ** 0.5
    # Fused coordinates are float32 sums: each of at most so many members adds a relative error of 2^-24 (twice, here).
    margin = 1e-6 + int(np.bincount(labels).max()) * 2.0**-23
    return np.vstack([centre - reach, side * ratio]) - margin, np.vstack([centre + reach, side / ratio]) + margin


def _hulls(owner: np.ndarray, boxes: np.ndarray, blocks: Pair) -> Pair:
    """Returns the bounding blocks of the boxes of each owner, by rising owner."""
    if not len(boxes):
        return blocks[0][:, :0], blocks[1][:, :0]
    members = boxes[np.argsort(owner[boxes], kind="stable")]
    starts = np.flatnonzero(np.diff(owner[members], prepend=-1))
    begins = np.minimum.reduceat(blocks[0][:, members], starts, axis=1)
    return begins, np.maximum.reduceat(blocks[1][:, members], starts, axis=1)


def _lockstep(groups: np.ndarray, corners: np.ndarray, scores: np.ndarray, iou_threshold: float) -> Clusters:
    """Returns what ``cluster_boxes`` does, with every group by itself and without asking who can reach whom."""
    order, starts = _steps(groups)
    corners, scores = corners[order], scores[order]
    founder = np.arange(len(scores))
    incoming = np.vstack([corners.T, box_area(corners)])
    weighted = scores[:, None] * corners
    box_sum = weighted.astype(np.float32)  # the reference sums boxes in float32, scores in float64
    score_sum = scores[:, None].copy()
    # The fused boxes so far: corners and area (5, groups, clusters); a row leaves when its group is done.
    state = incoming[:, : starts[1], None]
    owner = founder[: starts[1], None]
    clusters, every_row = np.ones(starts[1], np.int64), np.arange(starts[1])
    bounds = starts.tolist()
    with np.errstate(divide="ignore", invalid="ignore"):  # zero scores: 0 / 0, as in the reference
        for begin, end in pairwise(bounds[1:]):
            rows, width = end - begin, int(clusters[: end - begin].max())
            if width == owner.shape[1]:
                state, owner = _widened(state[:, :rows], owner[:rows])
            iou = _iou(state[:, :rows, :width], incoming[:, begin:end, None])
            best = iou.argmax(axis=1)
            hit = ~(iou[every_row[:rows], best] <= iou_threshold)  # so written, a NaN matches, as in the reference
            new = (~hit).nonzero()[0]
            if len(new):
                column = clusters[new]
                owner[new, column] = begin + new
                state[:, new, column] = incoming[:, begin + new]
                clusters[new] = column + 1
            old = hit.nonzero()[0]
            if len(old):
                column, box = best[old], begin + old
                founder[box] = target = owner[old, column]
                score_sum[target] = total = score_sum[target] + scores[box, None]
                box_sum[target] = sums = (box_sum[target] + weighted[box]).astype(np.float32)
                fused = (sums / total).astype(np.float32).astype(np.float64)
                sides = fused[:, :2] + fused[:, 2:]
                state[:4, old, column] = fused.T
                state[4, old, column] = sides[:, 0] * sides[:, 1]
        fused = (box_sum / score_sum).astype(np.float32).astype(np.float64)
    alone = np.bincount(founder, minlength=len(founder)) < 2
    fused[alone] = corners[alone]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return order[founder][back], fused[back], score_sum[back, 0]


def _iou(clusters: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns (rows, columns) IoU of each row's clusters with the row's box; both as ``state`` in ``_lockstep``."""
    cross = np.maximum(clusters[:4], boxes[:4])
    sides = np.minimum(cross[:2] + cross[2:], 0)  # minus the width and minus the height
    inter: np.ndarray = sides[0] * sides[1]
    inter /= clusters[4] + boxes[4] - inter
    return inter


def _widened(state: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns state and owner with at least twice the columns; new ones hold boxes that intersect nothing."""
    rows, have = owner.shape
    nothing = np.array([2.0, 2.0, 1.0, 1.0, 1.0])  # x1 = y1 = 2, x2 = y2 = -1, area 1
    wide, wide_owner = np.empty((5, rows, max(2 * have, 4))), np.zeros((rows, max(2 * have, 4)), np.int64)
    wide[:, :, :have], wide_owner[:, :have] = state, owner
    wide[:, :, have:] = nothing[:, None, None]
    return wide, wide_owner


def box_area(corners: np.ndarray) -> np.ndarray:
    """Returns the areas (n,) of corners (n, 4)."""
    area: np.ndarray = (-corners[:, 2] - corners[:, 0]) * (-corners[:, 3] - corners[:, 1])
    return area


def _steps(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (order, starts): the j-th box of each group, largest group first, is order[starts[j]:starts[j+1]]."""
    sizes = np.bincount(groups)
    by_group = np.argsort(groups, kind="stable")
    turn = np.empty_like(by_group)
    turn[by_group] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty_like(sizes)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    order = np.argsort(turn * len(sizes) + place[groups])
    return order, np.concatenate([[0], np.cumsum(np.bincount(turn))])
