"""Contrastive denoising: beside its own queries the decoder gets noised true boxes, which it has to repair or to reject.

Source: Zhang et al., "DINO", ICLR 2023, section 3.3; the numbers of PaddleDetection 2.6 (docs/parity.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppmtl.models.heads._dino_truth import Pairs, Truth

_EPSILON = 1e-6  # of the inverse sigmoid: a side of 0 becomes -13.8


@dataclass(frozen=True)
class Denoising:
    """The noised queries of a batch: groups of (G slots to repair, G slots to reject), G = most boxes of an image.

    Attributes:
        labels: (B, D) int64 class whose embedding a query starts with; C = none, an empty slot.
        boxes: (B, D, 4) float32 logits of [cx, cy, w, h].
        hidden: (D + Q, D + Q) float32 for the decoder's self-attention, -1e9 where a query must not look: from the own
            queries at the noised ones (which know the answer), and from one group at another.
        groups: how often each box is there to be repaired.
        pairs: the queries to repair and their boxes.
    """

    labels: np.ndarray
    boxes: np.ndarray
    hidden: np.ndarray
    groups: int
    pairs: Pairs


def denoising_queries(
    truth: Truth,
    num_classes: int,
    num_queries: int,
    count: int,
    *,
    label_noise: float,
    box_noise: float,
    rng: np.random.Generator,
) -> Denoising:
    """Noised queries for at least one true box.

    Args:
        truth: the boxes of the batch.
        num_classes: of the head.
        num_queries: the decoder's own.
        count: noised queries to repair per image; rounded down to whole groups, at least one.
        label_noise: twice the share of labels that are drawn anew.
        box_noise: 1 moves a corner by up to half a side to be repaired, and by half to a whole side to be rejected.
        rng: where the noise comes from.
    """
    most = int(truth.counts.max())
    groups = max(1, count // most)
    labels = np.full((len(truth.counts), most), num_classes, np.int64)
    boxes = np.zeros((*labels.shape, 4), np.float32)
    labels[truth.image, truth.slot], boxes[truth.image, truth.slot] = truth.label, truth.boxes
    labels, boxes = np.tile(labels, (1, 2 * groups)), np.tile(boxes, (1, 2 * groups, 1))
    rejected = np.tile(np.arange(2 * most) >= most, groups)

    redrawn = (rng.random(labels.shape) < 0.5 * label_noise) & (labels < num_classes)
    labels = np.where(redrawn, rng.integers(0, num_classes, labels.shape), labels)
    sign = 2 * rng.integers(0, 2, boxes.shape) - 1
    way = sign * (rng.random(boxes.shape) + rejected[:, None]) * box_noise
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = np.concatenate([centre - half, centre + half], axis=-1) + way * np.tile(half, 2)
    low, high = np.split(np.clip(corners, 0, 1), 2, axis=-1)

    member = np.concatenate([np.arange(labels.shape[1]) // (2 * most), np.full(num_queries, -1)])
    seen = (member == -1) | (member[:, None] == member)
    return Denoising(
        labels=labels,
        boxes=_logit(np.concatenate([(low + high) / 2, high - low], axis=-1)).astype(np.float32),
        hidden=np.where(seen, 0, -1e9).astype(np.float32),
        groups=groups,
        pairs=Pairs(
            image=np.tile(truth.image, groups),
            query=(np.arange(groups)[:, None] * (2 * most) + truth.slot).reshape(-1),
            box=np.tile(np.arange(len(truth)), groups),
        ),
    )


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)  # a box to be rejected may be turned inside out
    return np.asarray(np.log(share / (1 - share + _EPSILON) + _EPSILON))
