"""The boxes that a batch should find, and which query has to find which. numpy: this is bookkeeping of a few boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
from scipy.optimize import linear_sum_assignment

from ppmtl.models.heads._target_rows import target_rows

FOCAL_ALPHA = 0.25  # of the focal loss and of the matching's class cost; gamma is 2


@dataclass(frozen=True)
class Truth:
    """All boxes of a batch, by image.

    Attributes:
        counts: (B,) int64 boxes of each image.
        image, label: (G,) int64.
        boxes: (G, 4) float32 [cx, cy, w, h] as shares of the image.
    """

    counts: np.ndarray
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, rows: paddle.Tensor, batch: int, num_classes: int) -> Truth:
        """Of target rows (M, 6) [image, class, cx, cy, w, h]; those of image -1 are none.

        Raises:
            ValueError: if a row names an image outside the batch or a class the head does not have.
        """
        values = target_rows(rows, batch, num_classes, "DINO")
        values = values[values[:, 0] >= 0]
        values = values[np.argsort(values[:, 0], kind="stable")]
        image, label = values[:, 0].astype(np.int64), values[:, 1].astype(np.int64)
        return cls(np.bincount(image, minlength=batch), image, label, values[:, 2:])

    def __len__(self) -> int:
        return len(self.label)

    @property
    def slot(self) -> np.ndarray:
        """(G,) the number of each box within its image."""
        slots: np.ndarray = np.arange(len(self)) - (np.cumsum(self.counts) - self.counts)[self.image]
        return slots


@dataclass(frozen=True)
class Pairs:
    """Who has to find what: (n,) int64 image and query, and the place of the box in the truth."""

    image: np.ndarray
    query: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of the focal, the L1 and the generalised-IoU cost."""

    label: float
    box: float
    giou: float


def match(boxes: np.ndarray, logits: np.ndarray, truth: Truth, costs: MatchingCosts) -> Pairs:
    """The cheapest assignment of one query to each box, image by image (Hungarian method).

    Args:
        boxes: (B, Q, 4) float32 [cx, cy, w, h] as shares of the image.
        logits: (B, Q, C) float32.
        truth: what should be found; of more boxes than queries the dearest stay without one.
        costs: how much what is wrong counts.
    """
    images, queries, found = [], [], []
    for image in np.flatnonzero(truth.counts):
        wanted = np.flatnonzero(truth.image == image)
        reference = truth.boxes[wanted]
        cost = costs.label * _class_cost(logits[image][:, truth.label[wanted]])
        cost += costs.box * np.abs(boxes[image][:, None] - reference).sum(axis=2)
        cost += costs.giou * (1 - _pairwise_giou(boxes[image], reference))
        query, box = linear_sum_assignment(cost)
        images.append(np.full(len(query), image))
        queries.append(query)
        found.append(wanted[box])
    none = np.zeros(0, np.int64)
    return Pairs(*(np.concatenate([none, *part]).astype(np.int64) for part in (images, queries, found)))


def _class_cost(logits: np.ndarray) -> np.ndarray:
    """What the focal loss would pay more if these classes were false than if they were true, negated."""
    score = 1 / (1 + np.exp(-logits))
    false = (1 - FOCAL_ALPHA) * score**2 * -np.log(1 - score + 1e-8)
    true = FOCAL_ALPHA * (1 - score) ** 2 * -np.log(score + 1e-8)
    return np.asarray(true - false)


def _pairwise_giou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(Q, G) generalised IoU of (Q, 4) with (G, 4) [cx, cy, w, h]."""
    low, high = _corners(boxes[:, None])
    other_low, other_high = _corners(others[None])
    overlap = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0).prod(axis=2)
    hull = (np.maximum(high, other_high) - np.minimum(low, other_low)).prod(axis=2) + 1e-10
    union = (high - low).prod(axis=2) + (other_high - other_low).prod(axis=2) - overlap + 1e-10
    return np.asarray(overlap / union - (hull - union) / hull)


def _corners(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
