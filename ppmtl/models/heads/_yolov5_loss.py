"""The YOLOv5 loss: which cells answer for which box, and what they pay.

Written from the formulas in the project reference "model.md" section 5. Where the two public implementations differ
(CIoU's epsilon, clamping of border cells) this follows the numerically safe one, as noted at the place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import paddle
import paddle.nn.functional as F

from ppmtl.models.heads._target_rows import target_rows
from ppmtl.structures import Size

Anchors = tuple[tuple[tuple[float, float], ...], ...]

# 1e-9, which one public implementation uses, vanishes beside 1 in float32: a perfect box then gives 0 / 0.
CIOU_EPSILON = 1e-7
# The cell of the centre, then its left, upper, right and lower neighbour, as (x, y) steps taken *back* from the centre.
NEIGHBOUR_STEPS = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float32) * np.float32(0.5)
# "ultralytics" scaling states its weights for 640 px, 80 classes and 3 levels.
SCALING_PIXELS, SCALING_CLASSES, SCALING_LEVELS = 640, 80, 3


@dataclass(frozen=True)
class YOLOv5LossSettings:
    """The constants of the loss; the YOLOv5 head documents each where the user sets it."""

    num_classes: int
    anchors: Anchors
    strides: tuple[int, ...]
    gain: float | None
    box_weight: float
    objectness_weight: float
    class_weight: float
    scaling: Literal["paddleyolo", "ultralytics"]
    balance: tuple[float, ...]
    anchor_threshold: float
    label_smoothing: float

    def weights(self, image_size: Size) -> tuple[float, float, float]:
        """Those of the box, objectness and class terms for inputs of ``image_size`` (H, W)."""
        if self.scaling == "paddleyolo":
            return self.box_weight, self.objectness_weight, self.class_weight
        per_level = SCALING_LEVELS / len(self.strides)
        # The rule speaks of square inputs, (side / 640)^2; the area says the same and also covers rectangles.
        area = image_size[0] * image_size[1] / SCALING_PIXELS**2
        return (
            self.box_weight * per_level,
            self.objectness_weight * per_level * area,
            self.class_weight * per_level * self.num_classes / SCALING_CLASSES,
        )


@dataclass(frozen=True)
class LevelTargets:
    """The (cell, anchor) pairs of one level that must predict a box, one per row; one box may own several rows."""

    image: np.ndarray  # this and the next four: (n,) int64
    anchor: np.ndarray
    row: np.ndarray
    column: np.ndarray
    label: np.ndarray
    boxes: np.ndarray  # (n, 4) float32 [cx - column, cy - row, w, h] in cells of this level

    def __len__(self) -> int:
        return len(self.image)


def fits(sizes: np.ndarray, anchors: np.ndarray, threshold: float) -> np.ndarray:
    """Which of ``anchors`` (A, 2) differ in neither side from ``sizes`` (M, 2) by ``threshold`` or more, (A, M) bool."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a zero-sized box fits no anchor: its ratio is inf or nan
        ratio = sizes[None] / anchors[:, None]
        fitting: np.ndarray = np.maximum(ratio, 1 / ratio).max(axis=2) < threshold
    return fitting


def assign_targets(
    targets: np.ndarray, anchors: np.ndarray, *, scale: tuple[float, float], grid: Size, threshold: float
) -> LevelTargets:
    """The cells of one level that answer for the boxes, offset-major, then by anchor, then by target.

    The order matters: where two rows fall on one cell and anchor, the later one sets the objectness target.

    Args:
        targets: (M, 6) float32 [image, class, cx, cy, w, h], normalised to the network input; M may be 0.
        anchors: (A, 2) float32 (w, h) in cells of this level.
        scale: (height, width) of the network input in cells of this level; not whole when a side is no multiple.
        grid: (rows, columns) of cells that may answer.
        threshold: an anchor fits when neither side differs by this factor or more.
    """
    height, width = scale
    centres = targets[:, 2:4] * np.array([width, height], np.float32)
    sizes = targets[:, 4:6] * np.array([width, height], np.float32)
    anchor, target = np.nonzero(fits(sizes, anchors, threshold))

    centre = centres[target]
    limit = np.array([grid[1], grid[0]], np.float32)
    before = (centre % 1 < 0.5) & (centre > 1)
    after = ((limit - centre) % 1 < 0.5) & (limit - centre > 1)
    chosen = np.stack([np.ones(len(target), bool), before[:, 0], before[:, 1], after[:, 0], after[:, 1]])
    step, pair = np.nonzero(chosen)

    anchor, target, centre = anchor[pair], target[pair], centre[pair]
    cell = (centre - NEIGHBOUR_STEPS[step]).astype(np.int64)
    # Clamp *before* the offset is formed: otherwise a centre exactly on the right or lower border asks its cell for an
    # offset of a neighbour that does not exist.
    cell = np.clip(cell, 0, np.array([grid[1], grid[0]]) - 1)
    return LevelTargets(
        image=targets[target, 0].astype(np.int64),
        anchor=anchor,
        row=cell[:, 1],
        column=cell[:, 0],
        label=targets[target, 1].astype(np.int64),
        boxes=np.concatenate([centre - cell, sizes[target]], axis=1).astype(np.float32),
    )


def complete_iou(boxes: paddle.Tensor, references: paddle.Tensor) -> paddle.Tensor:
    """(n,) the complete IoU of row-wise pairs of (n, 4) [cx, cy, w, h], in -1.5..1; 1 when they are equal.

    Source: Zheng et al. 2020, "Distance-IoU Loss", eq. 7-11; ``alpha`` is a constant for the gradient.
    """
    centre, size = boxes[:, :2], boxes[:, 2:]
    reference_centre, reference_size = references[:, :2], references[:, 2:]
    low, reference_low = centre - size / 2, reference_centre - reference_size / 2
    high, reference_high = centre + size / 2, reference_centre + reference_size / 2
    overlap = paddle.clip(paddle.minimum(high, reference_high) - paddle.maximum(low, reference_low), min=0)
    hull = paddle.maximum(high, reference_high) - paddle.minimum(low, reference_low)

    intersection = _area(overlap)
    union = _area(size) + _area(reference_size) - intersection + CIOU_EPSILON
    iou = intersection / union
    distance = (reference_centre - centre).square().sum(axis=1) / (hull.square().sum(axis=1) + CIOU_EPSILON)
    shape = 4 / math.pi**2 * (_aspect_angle(reference_size) - _aspect_angle(size)).square()
    with paddle.no_grad():
        alpha = shape / (shape - iou + (1 + CIOU_EPSILON))
    return iou - distance - alpha * shape


def yolov5_loss(
    maps: Sequence[paddle.Tensor], targets: paddle.Tensor, image_size: Size, settings: YOLOv5LossSettings
) -> dict[str, paddle.Tensor]:
    """{"loss_box", "loss_obj", "loss_cls"}: 0-D float32, weighted and multiplied by the gain; sum = total.

    A level without targets adds nothing to box and class; a batch without targets still pays for objectness.

    Args:
        maps: per level (B, A * (5 + C), rows, columns) raw outputs, channel = anchor * (5 + C) + [x, y, w, h, obj,
            classes]. Cells that lie entirely outside the image (padding) are cut off: they never become detections,
            so as easy negatives they would only thin out the mean. Inputs that are multiples of 32 have none.
        targets: (M, 6) [image, class, cx, cy, w, h] normalised to ``image_size``; rows with image < 0 are ignored.
        image_size: (H, W) of the network input in pixels.
        settings: the constants.

    Raises:
        ValueError: if a row names an image outside the batch or a class the head does not have.
    """
    batch = maps[0].shape[0]
    rows = target_rows(targets, batch, settings.num_classes, "yolov5_loss")
    rows = rows[rows[:, 0] >= 0]
    zero = paddle.zeros([], "float32")
    box, objectness, label = zero, zero, zero
    # Everything in float32 even under AMP: in float16 1 + 1e-7 == 1 (see CIOU_EPSILON), and means over 1e5 cells lose
    # their digits.
    with paddle.amp.auto_cast(enable=False):
        for level, stride in enumerate(settings.strides):
            scale = (image_size[0] / stride, image_size[1] / stride)
            inside = maps[level][:, :, : math.ceil(scale[0]), : math.ceil(scale[1])]
            cells = paddle.cast(inside, "float32")
            terms = _level_terms(cells, rows, scale, np.array(settings.anchors[level], np.float32) / stride, settings)
            box = box + terms[0]
            objectness = objectness + settings.balance[level] * terms[1]
            label = label + terms[2]
        gain = batch if settings.gain is None else settings.gain
        weights = settings.weights(image_size)
        return {
            "loss_box": box * (weights[0] * gain),
            "loss_obj": objectness * (weights[1] * gain),
            "loss_cls": label * (weights[2] * gain),
        }


def _level_terms(
    cells: paddle.Tensor,
    rows: np.ndarray,
    scale: tuple[float, float],
    anchors: np.ndarray,
    settings: YOLOv5LossSettings,
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """The unweighted box, objectness and class means of one level."""
    batch, _, height, width = cells.shape
    per_anchor = 5 + settings.num_classes
    matched = assign_targets(rows, anchors, scale=scale, grid=(height, width), threshold=settings.anchor_threshold)
    objectness = cells.reshape([batch, len(anchors), per_anchor, height * width])[:, :, 4]
    truth = paddle.zeros([batch * len(anchors) * height * width], "float32")
    box_term = class_term = paddle.zeros([], "float32")
    if len(matched):  # the mean of an empty tensor is NaN in Paddle
        plane = matched.image * len(anchors) + matched.anchor
        cell = matched.row * width + matched.column
        outputs = _gather(cells, plane, cell, per_anchor)
        centre = 2 * F.sigmoid(outputs[:, 0:2]) - 0.5
        size = (2 * F.sigmoid(outputs[:, 2:4])).square() * paddle.to_tensor(anchors[matched.anchor])
        ciou = complete_iou(paddle.concat([centre, size], axis=1), paddle.to_tensor(matched.boxes))
        box_term = (1 - ciou).mean()
        smoothing = settings.label_smoothing
        classes = np.full((len(matched), settings.num_classes), smoothing / 2, np.float32)
        classes[np.arange(len(matched)), matched.label] = 1 - smoothing / 2
        class_term = F.binary_cross_entropy_with_logits(outputs[:, 5:], paddle.to_tensor(classes))
        with paddle.no_grad():
            winners = _last_of_each(plane * (height * width) + cell)
            quality = paddle.clip(ciou.detach(), min=0)
            truth = paddle.scatter(truth, _index(winners[0]), paddle.gather(quality, _index(winners[1])))
    objectness_term = F.binary_cross_entropy_with_logits(objectness.reshape([-1]), truth)
    return box_term, objectness_term, class_term


def _gather(cells: paddle.Tensor, plane: np.ndarray, cell: np.ndarray, per_anchor: int) -> paddle.Tensor:
    """(n, 5 + C) the outputs of the chosen cells, without transposing the whole map."""
    area = cells.shape[2] * cells.shape[3]
    index = (plane[:, None] * per_anchor + np.arange(per_anchor)) * area + cell[:, None]
    return paddle.gather(cells.reshape([-1]), _index(index.reshape(-1))).reshape([len(plane), per_anchor])


def _last_of_each(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys and where each occurs last; scatter promises no order for repeated indices on a GPU."""
    distinct, from_end = np.unique(keys[::-1], return_index=True)
    return distinct, len(keys) - 1 - from_end


def _area(size: paddle.Tensor) -> paddle.Tensor:
    # Not Tensor.prod: its gradient is product / factor, NaN when a side is 0.
    return size[:, 0] * size[:, 1]


def _aspect_angle(size: paddle.Tensor) -> paddle.Tensor:
    # The floor only acts when a height has underflowed to 0, where w / h would make the gradient NaN.
    return paddle.atan(size[:, 0] / paddle.clip(size[:, 1], min=CIOU_EPSILON))


def _index(values: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(values.astype(np.int64))
