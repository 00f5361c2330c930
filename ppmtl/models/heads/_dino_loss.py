"""DINO's loss: focal, L1 and generalised IoU, for every decoder layer, the encoder's proposals and the noised queries.

The numbers of PaddleDetection 2.6 (docs/parity.md) in one process. With several, each divides by its own boxes, where
PaddleDetection divides by their mean over the processes: a head does not communicate here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F

from ppmtl.models.heads._dino_truth import FOCAL_ALPHA, MatchingCosts, Pairs, Truth, match

_EPSILON = 1e-10  # PaddleDetection's, of both areas of the generalised IoU


@dataclass(frozen=True)
class DINOLossSettings:
    """The constants of the loss; the DINO head documents each where the user sets it."""

    class_weight: float
    box_weight: float
    giou_weight: float
    costs: MatchingCosts


def term_names(suffix: str = "") -> list[str]:
    """What the terms are called, those of the last layer first."""
    return [f"loss_{name}{aux}{suffix}" for aux in ("", "_aux") for name in ("class", "bbox", "giou")]


def matching_loss(
    boxes: paddle.Tensor, logits: paddle.Tensor, truth: Truth, settings: DINOLossSettings
) -> dict[str, paddle.Tensor]:
    """{"loss_class", "loss_bbox", "loss_giou"} of the last layer, and the sums of the others' with "_aux"; 0-D float32.

    Each layer is matched by itself. Without any box there is only the class term.

    Args:
        boxes: (L, B, Q, 4) [cx, cy, w, h] as shares of the image, the encoder's proposals first.
        logits: (L, B, Q, C).
        truth: what should be found.
        settings: the constants.
    """
    said = zip(boxes.numpy(), logits.numpy(), strict=True)
    pairs = [match(*layer, truth, settings.costs) for layer in said]
    return _loss(boxes, logits, truth, pairs, 1, "", settings)


def denoising_loss(
    boxes: paddle.Tensor, logits: paddle.Tensor, truth: Truth, pairs: Pairs, groups: int, settings: DINOLossSettings
) -> dict[str, paddle.Tensor]:
    """The same terms with "_dn" of the noised queries, (L, B, D, ...); they know their boxes, ``pairs``."""
    return _loss(boxes, logits, truth, [pairs] * boxes.shape[0], groups, "_dn", settings)


def _loss(
    boxes: paddle.Tensor,
    logits: paddle.Tensor,
    truth: Truth,
    pairs: Sequence[Pairs],
    groups: int,
    suffix: str,
    settings: DINOLossSettings,
) -> dict[str, paddle.Tensor]:
    depth, batch, queries, num_classes = logits.shape
    index = np.concatenate([(i * batch + p.image) * queries + p.query for i, p in enumerate(pairs)])
    box = np.concatenate([p.box for p in pairs])
    wanted = np.zeros((depth * batch * queries, num_classes), np.float32)
    wanted[index, truth.label[box]] = 1
    by_layer = {"class": _focal(logits, paddle.to_tensor(wanted).reshape(logits.shape)).sum([1, 2, 3])}
    if len(box):
        chosen = paddle.gather(boxes.reshape([-1, 4]), paddle.to_tensor(index))
        reference = paddle.to_tensor(truth.boxes[box])
        # Every layer has as many pairs
        by_layer["bbox"] = (chosen - reference).abs().sum(1).reshape([depth, -1]).sum(1)
        by_layer["giou"] = (1 - _giou(chosen, reference)).reshape([depth, -1]).sum(1)
    else:
        by_layer["bbox"] = by_layer["giou"] = boxes.sum([1, 2, 3]) * 0.0  # what makes boxes gets gradients of 0
    weights = {"class": settings.class_weight, "bbox": settings.box_weight, "giou": settings.giou_weight}
    terms = {}
    for name, value in by_layer.items():
        value = value * (weights[name] / (max(len(truth), 1) * groups))
        terms[f"loss_{name}{suffix}"], terms[f"loss_{name}_aux{suffix}"] = value[-1], value[:-1].sum()
    return terms


def _focal(logits: paddle.Tensor, wanted: paddle.Tensor) -> paddle.Tensor:
    """The focal loss of every number, gamma 2; Lin et al., ICCV 2017."""
    score = F.sigmoid(logits)
    missing = score + wanted - 2 * score * wanted  # 1 - the probability of the truth
    alpha = FOCAL_ALPHA * wanted + (1 - FOCAL_ALPHA) * (1 - wanted)
    return alpha * missing.square() * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _giou(boxes: paddle.Tensor, references: paddle.Tensor) -> paddle.Tensor:
    """(n,) the generalised IoU of row-wise pairs of (n, 4) [cx, cy, w, h]; Rezatofighi et al., CVPR 2019."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    other_low, other_high = references[:, :2] - references[:, 2:] / 2, references[:, :2] + references[:, 2:] / 2
    overlap = _area(paddle.clip(paddle.minimum(high, other_high) - paddle.maximum(low, other_low), min=0))
    hull = _area(paddle.maximum(high, other_high) - paddle.minimum(low, other_low)) + _EPSILON
    union = _area(high - low) + _area(other_high - other_low) - overlap + _EPSILON
    return overlap / union - (hull - union) / hull


def _area(size: paddle.Tensor) -> paddle.Tensor:
    # Not Tensor.prod: its gradient is product / factor, NaN when a side is 0.
    return size[:, 0] * size[:, 1]
