"""The loss of the anchor-free YOLOv7 heads: boxes, their distributions, classes, and masks on the same assignment.

Source: formulas in reference/yolor_mtl.md section 2.1; equal to golden yolor/detect_loss.json and mask_loss.json. Where the
two released losses differ (the divisor of the class term without any object) this is the one that stays finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F

from ppmtl.models.heads._tal import assign
from ppmtl.models.heads._target_rows import target_rows
from ppmtl.models.heads._yolov5_loss import complete_iou
from ppmtl.models.heads._yolov7_af_parts import BINS, Cells
from ppmtl.structures import Size

_LAST_TARGET = BINS - 1 - 0.01


@dataclass(frozen=True)
class Objects:
    """What is asked of a batch: the objects' rows, and which images say anything about them.

    Attributes:
        image: (M,) int64.
        label: (M,) int64.
        boxes: (M, 4) float32 xyxy, normalised.
        supervised: (B,) float32 1 or 0; an image with 0 is no background either.
        rows: (M,) int64, the row of each object in the targets.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    supervised: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Pairs of a cell and the object that it answers for, over the batch; never empty.

    Attributes:
        image, cell, target: (P,) int64; ``target`` indexes :class:`Objects`, -1 in the one row of a batch without pairs,
            which has score 0 and keeps the graph to every parameter.
        score: (P,) float32.
        divisor: the sum of all scores, at least 1.
    """

    image: np.ndarray
    cell: np.ndarray
    target: np.ndarray
    score: np.ndarray
    divisor: float


def read_objects(targets: Mapping[str, paddle.Tensor], batch: int, num_classes: int) -> Objects:
    """The targets {"boxes": (M, 6)[, "supervised": (B,)]} of a batch; rows with image < 0 are ignored.

    Raises:
        ValueError: if a row names an image outside the batch or a class that the head does not have.
    """
    rows = target_rows(targets["boxes"], batch, num_classes, "yolov7_af")
    supervised = targets["supervised"].numpy() if "supervised" in targets else np.ones(batch, np.float32)
    real = np.flatnonzero(rows[:, 0] >= 0)
    chosen = rows[real]
    half = chosen[:, 4:6] / 2
    boxes = np.concatenate([chosen[:, 2:4] - half, chosen[:, 2:4] + half], axis=1)
    return Objects(chosen[:, 0].astype(np.int64), chosen[:, 1].astype(np.int64), boxes, supervised, real)


def match(
    objects: Objects, boxes: paddle.Tensor, logits: paddle.Tensor, cells: Cells, image_size: Size, *, top_k: int
) -> Matches:
    """Assigns every image of a batch; ``boxes`` (B, A, 4) xyxy pixels and ``logits`` (B, C, A) are the predictions."""
    found, scores = boxes.numpy(), F.sigmoid(logits.detach()).numpy()
    points = (cells.centres * cells.strides).numpy()
    scale = np.array([image_size[1], image_size[0]] * 2, np.float32)
    parts = []
    for image in np.flatnonzero(objects.supervised > 0):
        own = np.flatnonzero(objects.image == image)
        result = assign(
            points, found[image], scores[image], objects.boxes[own] * scale, objects.label[own], top_k=top_k
        )
        parts.append((np.full(len(result.cell), image), result.cell, own[result.box], result.score))
    if not sum(len(part[0]) for part in parts):
        zero = np.zeros(1, np.int64)
        return Matches(zero, zero, zero - 1, np.zeros(1, np.float32), 1.0)
    images, found_cells, found_objects, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Matches(images, found_cells, found_objects, score, max(float(score.sum()), 1.0))


def box_losses(
    bins: paddle.Tensor, cells: Cells, objects: Objects, matches: Matches, image_size: Size
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The 1 - CIoU term and the distribution term, 0-D, unweighted; ``bins`` is (B, 4 * BINS, A) raw outputs."""
    chosen = _take(bins, matches).reshape([-1, 4, BINS])
    weight = paddle.to_tensor(matches.score / np.float32(matches.divisor))
    cell = paddle.to_tensor(matches.cell)
    centre, stride = paddle.gather(cells.centres, cell), paddle.gather(cells.strides, cell)
    # Row -1 of a batch without pairs meets a dummy box: its weight is 0, but it must be finite
    truth = np.concatenate([objects.boxes, np.array([[0, 0, 1, 1]], np.float32)])[matches.target]
    scale = np.array([image_size[1], image_size[0]] * 2, np.float32)
    target = paddle.to_tensor(truth * scale) / stride
    distance = (F.softmax(chosen, axis=2) * paddle.arange(BINS, dtype="float32")).sum(axis=2)
    low, high = centre - distance[:, :2], centre + distance[:, 2:]
    overlap = complete_iou(_centred(low, high), _centred(target[:, :2], target[:, 2:]))
    sides = paddle.concat([centre - target[:, :2], target[:, 2:] - centre], axis=1)
    return ((1 - overlap) * weight).sum(), (_distribution_loss(chosen, sides) * weight).sum()


def _distribution_loss(bins: paddle.Tensor, sides: paddle.Tensor) -> paddle.Tensor:
    """(P,) how far the four distributions (P, 4, BINS) are from their targets (P, 4), in cells; Li et al. 2020, GFL."""
    sides = paddle.clip(sides, 0, _LAST_TARGET)
    lower = paddle.floor(sides)
    share = sides - lower
    logs = F.log_softmax(bins, axis=2)
    index = lower.astype("int64").unsqueeze(2)
    below, above = (paddle.take_along_axis(logs, index + step, axis=2).squeeze(2) for step in (0, 1))
    return -(below * (1 - share) + above * share).mean(axis=1)


def class_loss(logits: paddle.Tensor, objects: Objects, matches: Matches) -> paddle.Tensor:
    """The binary cross entropy with soft targets over all cells of supervised images, 0-D; ``logits`` is (B, C, A).

    As sum of softplus(x) - x t: targets t are 0 almost everywhere, and no array of them is made.
    """
    supervised = paddle.to_tensor(objects.supervised.reshape(-1, 1, 1))
    label = np.append(objects.label, 0)[matches.target]
    place = (matches.image * logits.shape[1] + label) * logits.shape[2] + matches.cell
    positive = paddle.gather(logits.reshape([-1]), paddle.to_tensor(place)) * paddle.to_tensor(matches.score)
    return ((F.softplus(logits) * supervised).sum() - positive.sum()) / matches.divisor


def mask_loss(
    coefficients: paddle.Tensor,
    prototypes: paddle.Tensor,
    objects: Objects,
    matches: Matches,
    masks: paddle.Tensor,
    has_mask: paddle.Tensor,
) -> paddle.Tensor:
    """The mask term, 0-D: mean over the pairs of an image, then over the supervised images of the batch.

    A pair pays the cross entropy inside its object's box, per pixel of the map and relative to the box's area. Pairs whose
    object has no mask do not count.

    Args:
        coefficients: (B, K, A).
        prototypes: (B, K, h, w).
        objects, matches: as assigned.
        masks: (rows, h', w') 0 or 1, one for each row of the targets; what exceeds h and w is cut off.
        has_mask: (rows,) 1 or 0.
    """
    stride_scale = np.array([masks.shape[2], masks.shape[1]] * 2, np.float32)
    height, width = (min(prototypes.shape[i], masks.shape[i - 1]) for i in (2, 3))
    rows = np.append(objects.rows, 0)[matches.target]
    counted = (has_mask.numpy()[rows] > 0) & (matches.target >= 0)
    total = coefficients.sum() * 0 + prototypes.sum() * 0  # every parameter gets a gradient, also without any mask
    chosen, drawn = _take(coefficients, matches), masks.numpy()[:, :height, :width]
    for image in np.unique(matches.image[counted]):
        pairs = np.flatnonzero(counted & (matches.image == image))
        boxes = objects.boxes[matches.target[pairs]]
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        # Of all pairs of an object and a pixel few lie in a box, and everything but the product is computed for these only
        pair, y, x = np.nonzero(_inside(boxes * stride_scale, height, width))
        logits = paddle.matmul(
            paddle.gather(chosen, paddle.to_tensor(pairs)), prototypes[int(image), :, :height, :width].flatten(1)
        )
        inside = paddle.gather(logits.flatten(), paddle.to_tensor((pair * height + y) * width + x))
        truth = paddle.to_tensor(drawn[rows[pairs[pair]], y, x].astype(np.float32))
        weights = paddle.to_tensor((1 / (area[pair] * (len(pairs) * height * width))).astype(np.float32))
        total = total + F.binary_cross_entropy_with_logits(inside, truth, weights, reduction="sum")
    return total / max(float(objects.supervised.sum()), 1.0)


def _inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(P, height, width) bool: pixels whose index lies in the box, xyxy in pixels of the map, not rounded."""
    x, y = np.arange(width), np.arange(height)
    columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    lines = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    return lines[:, :, None] & columns[:, None, :]


def _take(maps: paddle.Tensor, matches: Matches) -> paddle.Tensor:
    """(P, channels) the outputs of the matched cells; ``maps`` is (B, channels, A)."""
    place = paddle.to_tensor(matches.image * maps.shape[2] + matches.cell)
    return paddle.gather(maps.transpose([0, 2, 1]).reshape([-1, maps.shape[1]]), place)


def _centred(low: paddle.Tensor, high: paddle.Tensor) -> paddle.Tensor:
    return paddle.concat([(low + high) / 2, high - low], axis=1)
