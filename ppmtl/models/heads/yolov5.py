"""The YOLOv5 detection head: an own neck, one 1x1 convolution per level, the loss and the decoding.

Written from the formulas in the project reference "model.md" sections 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import paddle
import paddle.nn.functional as F
from annotated_types import Ge, Gt, Interval
from paddle import nn

from ppmtl.config import Part
from ppmtl.models.base import Head, Side, of_strides
from ppmtl.models.heads._labelled import labelled_part, zero_loss
from ppmtl.models.heads._yolov5_loss import Anchors, YOLOv5LossSettings, assign_targets, fits, yolov5_loss
from ppmtl.models.layers import Conv2D, sigmoid
from ppmtl.models.necks.yolocsppan import YOLOCSPPAN
from ppmtl.structures import FeatureSpec, Size

STRIDES = (8, 16, 32)
COCO_ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
ANCHOR_THRESHOLD = 4.0
# The prior of the biases: about 8 objects in a 640 px image, whatever the real input size, and 0.6 / C per class.
PRIOR_OBJECTS, PRIOR_PIXELS, PRIOR_CLASS = 8, 640, 0.6
DEFAULT_NECK: Callable[..., nn.Layer] = partial(YOLOCSPPAN)


class YOLOv5(Head):
    """Anchor-based detector on strides 8, 16 and 32; any input size works.

    Levels that do not nest (1280 x 720 gives 90, 45 and 22 rows) are padded with zeros at the right and bottom. Cells
    that lie entirely outside the image take no part in the loss and get score 0.

    Args:
        reads: the features of stride 8, 16 and 32, in this order; None = the backbone's only ones of these strides.
        neck: built with the three chosen specs; must keep sizes and offer ``out_specs``.
        anchors: per level, (width, height) of the input [px]; the default is COCO's.
        loss_gain: [factor] on all three terms; None = the labelled images in the batch, as when the paper was
            written (one process). In a shared backbone it decides how loud detection is beside the other tasks.
        box_weight: [factor] of 1 - CIoU.
        objectness_weight: [factor] of the objectness term.
        class_weight: [factor] of the class term.
        scaling: "paddleyolo" takes the weights as they are; "ultralytics" multiplies the class weight by C / 80 and
            the objectness weight by input area / 640^2.
        balance: [factor] of each level in the objectness term.
        anchor_threshold: a box uses an anchor when both side ratios stay below this [factor].
        label_smoothing: the [share] e that is taken off: class targets are 1 - e/2 and e/2.

    Raises:
        ValueError: if a stride is missing or there twice, or anchors and balance do not describe three levels alike.
    """

    task_type = "detection"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, str, str] | None = None,
        neck: Annotated[Callable[..., nn.Layer], Part("ppmtl.models.necks")] = DEFAULT_NECK,
        anchors: tuple[tuple[tuple[float, float], ...], ...] = COCO_ANCHORS,
        loss_gain: Annotated[float, Gt(0)] | None = None,
        box_weight: Annotated[float, Ge(0)] = 0.05,
        objectness_weight: Annotated[float, Ge(0)] = 1.0,
        class_weight: Annotated[float, Ge(0)] = 0.5,
        scaling: Literal["paddleyolo", "ultralytics"] = "paddleyolo",
        balance: tuple[float, float, float] = (4.0, 1.0, 0.4),
        anchor_threshold: Annotated[float, Gt(1)] = ANCHOR_THRESHOLD,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        _check_anchors(anchors, balance)
        self.reads = self.choose(in_specs, reads, default=of_strides(in_specs, STRIDES))
        strides = {name: in_specs[name].stride for name in self.reads}
        if tuple(strides.values()) != STRIDES:
            raise ValueError(
                f"YOLOv5 reads one feature each of stride 8, 16 and 32, in this order; got strides {strides}"
            )
        self.num_classes = num_classes
        self.loss_settings = YOLOv5LossSettings(
            num_classes=num_classes,
            anchors=anchors,
            strides=STRIDES,
            gain=loss_gain,
            box_weight=box_weight,
            objectness_weight=objectness_weight,
            class_weight=class_weight,
            scaling=scaling,
            balance=balance,
            anchor_threshold=anchor_threshold,
            label_smoothing=label_smoothing,
        )
        self.neck = neck([in_specs[name] for name in self.reads])
        convolutions = [
            _output_conv(spec.channels, num_classes, len(anchors[0]), stride)
            for spec, stride in zip(self.neck.out_specs, STRIDES, strict=True)
        ]
        self.outputs = nn.LayerList(convolutions)

    @staticmethod
    def answered(sides: np.ndarray, **settings: Any) -> np.ndarray:
        """The anchors of all levels whose sides differ from the object's by less than ``anchor_threshold``."""
        levels, threshold = settings.get("anchors", COCO_ANCHORS), settings.get("anchor_threshold", ANCHOR_THRESHOLD)
        anchors = np.array([anchor for level in levels for anchor in level], np.float32)
        return fits(sides, anchors, threshold).sum(axis=0)

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """The loss terms when there are targets, else what every anchor of every cell says.

        Targets are "boxes" (see ``yolov5_loss``) and "supervised" (B,): the loss is that of the batch of images with 1.

        Returns:
            "boxes" (B, N, 4) float32 xyxy in input pixels, not clipped, and "scores" (B, N, C) float32 = objectness x
            class, N running over level, anchor, row, column.
        """
        levels = self.neck(_pad_to_nested([features[name] for name in self.reads]))
        # Indices, not zip(strict=True): Paddle's exporter rewrites zip and does not know the keyword.
        maps = [self.outputs[index](level) for index, level in enumerate(levels)]
        if targets is not None:
            return self._loss(maps, image_size, targets)
        boxes, scores = [], []
        for index, stride in enumerate(STRIDES):
            # float32: pixel coordinates above 2048 have no fraction left in float16.
            cells = paddle.cast(maps[index], "float32")
            decoded = _decode(cells, self.loss_settings.anchors[index], stride, image_size, self.num_classes)
            boxes.append(decoded[0])
            scores.append(decoded[1])
        return {"boxes": paddle.concat(boxes, axis=1), "scores": paddle.concat(scores, axis=1)}

    def assigned(self, targets: Mapping[str, np.ndarray], image_size: tuple[int, int]) -> dict[str, np.ndarray]:
        """{"stride 8": rows, ...}; see ``Head.assigned``."""
        rows = targets["boxes"][targets["boxes"][:, 0] >= 0]
        rows = np.concatenate([rows[:, :1], np.arange(len(rows), dtype=np.float32)[:, None], rows[:, 2:]], axis=1)
        found = {}
        for level, stride in zip(self.loss_settings.anchors, STRIDES, strict=True):
            anchors, scale = np.array(level, np.float32), (image_size[0] / stride, image_size[1] / stride)
            cells = assign_targets(rows, anchors / stride, scale=scale, grid=(math.ceil(scale[0]), math.ceil(scale[1])),
                                   threshold=self.loss_settings.anchor_threshold)  # fmt: skip
            centres = (np.stack([cells.column, cells.row], axis=1) + 0.5) * stride
            half = anchors[cells.anchor] / 2
            parts = [cells.image[:, None], cells.label[:, None], centres - half, centres + half]
            found[f"stride {stride}"] = np.concatenate(parts, axis=1).astype(np.float32)
        return found

    def _loss(
        self, maps: Sequence[paddle.Tensor], image_size: Size, targets: Mapping[str, paddle.Tensor]
    ) -> dict[str, paddle.Tensor]:
        # A method of its own: Paddle's exporter would rewrite its conditions, though an exported graph has no targets
        labelled = targets["supervised"].numpy() > 0
        if not labelled.any():
            return dict.fromkeys(("loss_box", "loss_obj", "loss_cls"), zero_loss(maps))
        maps, rows = labelled_part(maps, targets["boxes"], labelled)
        return yolov5_loss(maps, rows, image_size, self.loss_settings)


def _check_anchors(anchors: Anchors, balance: Sequence[float]) -> None:
    counts = [len(level) for level in anchors]
    if len(counts) != len(STRIDES) or len(set(counts)) != 1 or 0 in counts or len(balance) != len(STRIDES):
        raise ValueError(
            "YOLOv5 needs anchors for three levels (strides 8, 16, 32), as many on each, and three balance weights; "
            f"got {counts} anchors and {len(balance)} weights"
        )
    if min(side for level in anchors for anchor in level for side in anchor) <= 0:
        raise ValueError(f"YOLOv5 anchors are (width, height) in pixels and must be > 0, got {anchors}")


def _output_conv(channels: int, num_classes: int, num_anchors: int, stride: int) -> Conv2D:
    """The 1x1 convolution of one level, its biases set (not added) to the prior."""
    bound = channels**-0.5
    bias = np.zeros((num_anchors, 5 + num_classes), np.float32)
    bias[:, 4] = math.log(PRIOR_OBJECTS / (PRIOR_PIXELS / stride) ** 2)
    # .999999, not 1, so that one class is legal; its prior is then close to certainty, as it should be.
    bias[:, 5:] = math.log(PRIOR_CLASS / (num_classes - 0.999999))
    return Conv2D(
        channels,
        bias.size,
        1,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)),
        bias_attr=paddle.ParamAttr(initializer=nn.initializer.Assign(bias.reshape(-1))),
    )


def _pad_to_nested(features: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
    """The three levels padded with zeros at right and bottom to sizes (4n, 4m), (2n, 2m), (n, m)."""
    factors = [STRIDES[-1] // stride for stride in STRIDES]
    if paddle.in_dynamic_mode():
        sizes = [np.array(feature.shape[2:]) for feature in features]
        coarsest = np.max([-(-size // factors[i]) for i, size in enumerate(sizes)], axis=0)
        extras = [(coarsest * factors[i] - size).tolist() for i, size in enumerate(sizes)]
        return [F.pad(features[i], [0, dx, 0, dy]) if dx or dy else features[i] for i, (dy, dx) in enumerate(extras)]
    # In an exported graph sizes are tensors, so that one file serves every input size. int32: F.pad insists.
    shapes = [paddle.cast(paddle.shape(feature)[2:], "int32") for feature in features]
    needed = [(shape + (factors[i] - 1)) // factors[i] for i, shape in enumerate(shapes)]
    largest = paddle.max(paddle.stack(needed), axis=0)  # Paddle 3.2.2 cannot export maximum or amax in the old format
    zero = paddle.zeros([1], "int32")
    added = [largest * factors[i] - shape for i, shape in enumerate(shapes)]  # rows at the bottom, columns at the right
    return [F.pad(features[i], paddle.concat([zero, n[1:2], zero, n[0:1]])) for i, n in enumerate(added)]


def _decode(
    cells: paddle.Tensor,
    anchors: Sequence[tuple[float, float]],
    stride: int,
    image_size: tuple[Side, Side],
    num_classes: int,
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Boxes (B, A * H * W, 4) xyxy px and scores (B, A * H * W, C) of one level; anchor, row, column order.

    Sizes are tensors throughout: nothing here may turn into a constant when the graph is exported.
    """
    size = paddle.cast(paddle.shape(cells)[2:], "int64")
    place = paddle.arange(size[0] * size[1], dtype="int64")
    cell = paddle.stack([place % size[1], place // size[1]], axis=1)  # (H * W, 2) column, row
    corner = paddle.cast(cell, "float32") * stride

    outputs = sigmoid(cells.reshape([0, len(anchors), 5 + num_classes, -1]))
    placed = outputs[:, :, :4].transpose([0, 1, 3, 2])
    # Number by number: to_tensor of a list becomes an operator (assign_value) that Paddle Inference 2.6 cannot load
    sides = [paddle.full([1], side, "float32") for anchor in anchors for side in anchor]
    anchor = paddle.concat(sides).reshape([1, len(anchors), 1, 2])
    centre = (2 * placed[..., 0:2] - 0.5) * stride + corner
    half = (2 * placed[..., 2:4]).square() * anchor / 2
    boxes = paddle.concat([centre - half, centre + half], axis=-1)

    height, width = (float(n) if isinstance(n, int) else paddle.cast(n, "float32") for n in image_size)
    inside = (corner[:, 0] < width) & (corner[:, 1] < height)
    # Cells last: along the classes oneDNN multiplies fifty times slower (28 against .6 ms for 3 x 3136 x 45)
    scores = outputs[:, :, 4:5] * outputs[:, :, 5:] * paddle.cast(inside, "float32")
    return boxes.reshape([0, -1, 4]), scores.transpose([0, 1, 3, 2]).reshape([0, -1, num_classes])
