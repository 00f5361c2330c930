"""Anchor-free decoupled detection as in YOLOv7-AF: boxes from distributions over their four distances, no objectness.

Source: reference/yolor_mtl.md section 1.4; outputs equal the reference's on golden yolor/af_detect.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import paddle
from annotated_types import Ge
from paddle import nn

from ppmtl.models.base import Head, Side, of_strides
from ppmtl.models.heads import _yolov7_af_loss as losses
from ppmtl.models.heads._yolov7_af_parts import BINS, Branch, Cells, decode_boxes, joined
from ppmtl.models.layers import Implicit, sigmoid
from ppmtl.structures import FeatureSpec

Weight = Annotated[float, Ge(0)]
STRIDES = (8, 16, 32)
# The prior of the class biases: five objects in a 640 px image, whatever the real input size.
PRIOR_OBJECTS, PRIOR_PIXELS, PRIOR_BOX = 5, 640, 1.0


class YOLOv7AFBoxes(Head):
    """Anchor-free detector; every cell of every level predicts one box. ``yolov7_af`` adds masks to it.

    The distribution's fixed numbers 0 to 15, which the reference counts as 16 frozen parameters, are none here.

    Args:
        reads: the features, finest first; None = the backbone's only ones of stride 8, 16 and 32.
        implicit: learned vectors around the last convolution of every branch.
        box_weight: [factor] of 1 - CIoU.
        distribution_weight: [factor] of the distribution focal term.
        class_weight: [factor] of the class term.
        top_k: [cells] that answer for an object at most.

    Raises:
        ValueError: if the features are not finest first, or a level of the default is missing.
    """

    task_type = "detection"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, ...] | None = None,
        implicit: bool = True,
        box_weight: Weight = 7.5,
        distribution_weight: Weight = 1.5,
        class_weight: Weight = 0.5,
        top_k: Annotated[int, Ge(1)] = 10,
    ) -> None:
        super().__init__()
        self.reads = self.choose(in_specs, reads, default=of_strides(in_specs, STRIDES))
        specs = [in_specs[name] for name in self.reads]
        self.strides = [spec.stride for spec in specs]
        if self.strides != sorted(set(self.strides)) or (reads is None and tuple(self.strides) != STRIDES):
            raise ValueError(
                f"{type(self).__name__} reads features of different strides, finest first, by default one each of 8, 16 "
                f"and 32; got strides {self.strides}: name the features with reads"
            )
        self.num_classes, self.implicit_enabled, self.top_k = num_classes, implicit, top_k
        self.weights = {"box": box_weight, "dfl": distribution_weight, "cls": class_weight}
        widths, finest = [spec.channels for spec in specs], specs[0].channels
        hidden = max(finest, min(2 * num_classes, 128))
        priors = [math.log(PRIOR_OBJECTS / num_classes / (PRIOR_PIXELS / stride) ** 2) for stride in self.strides]
        box_width = max(finest // 4, 4 * BINS)
        # Two levels of names, so that a table of parameters shows detection as one part
        self.detection, self.implicit = nn.LayerDict(), nn.LayerDict()
        self.detection["boxes"] = nn.LayerList([Branch(width, box_width, 4 * BINS, PRIOR_BOX) for width in widths])
        self.detection["classes"] = nn.LayerList(
            [Branch(width, hidden, num_classes, prior) for width, prior in zip(widths, priors, strict=True)]
        )
        for name, branches in self.detection.items():
            self._add_implicit(name, branches)
        self.register_buffer("bins", paddle.arange(BINS, dtype="float32"), persistable=False)

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """The loss terms when there are targets ({"boxes"[, "supervised"]}), else what every cell says.

        Returns:
            "boxes" (B, N, 4) float32 xyxy in input pixels, not clipped, and "scores" (B, N, C) float32, N running over
            level, row, column.
        """
        levels = [features[name] for name in self.reads]
        boxes, classes = self._detection_maps(levels)
        if targets is None:
            return self._decoded(boxes, classes)
        return self._detection_loss(boxes, classes, targets, image_size)[0]

    def _add_implicit(self, name: str, branches: nn.LayerList) -> None:
        around = [Implicit(branch.output, enabled=self.implicit_enabled) for branch in branches]
        self.implicit[name] = nn.LayerList(around)

    def _maps(self, name: str, branches: nn.LayerList, levels: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        """The raw outputs of one branch, a map for each level; float32, since distances and sums need the digits."""
        last = self.implicit[name]
        return [paddle.cast(last[i](branch(levels[i])), "float32") for i, branch in enumerate(branches)]

    def _detection_maps(self, levels: Sequence[paddle.Tensor]) -> tuple[list[paddle.Tensor], list[paddle.Tensor]]:
        boxes, classes = (self._maps(name, self.detection[name], levels) for name in ("boxes", "classes"))
        return boxes, classes

    def _decoded(self, boxes: Sequence[paddle.Tensor], classes: Sequence[paddle.Tensor]) -> dict[str, paddle.Tensor]:
        scores = sigmoid(joined(classes)).transpose([0, 2, 1])
        return {"boxes": decode_boxes(joined(boxes), self._cells(boxes), self.bins), "scores": scores}

    def _cells(self, maps: Sequence[paddle.Tensor]) -> Cells:
        """The cells of these maps. Sizes are tensors throughout: nothing may turn into a constant of an exported graph."""
        centres, strides = [], []
        for index, stride in enumerate(self.strides):
            size = paddle.cast(paddle.shape(maps[index])[2:], "int64")
            place = paddle.arange(size[0] * size[1], dtype="int64")
            cell = paddle.stack([place % size[1], place // size[1]], axis=1)
            centres.append(paddle.cast(cell, "float32") + 0.5)
            strides.append(paddle.cast(cell[:, :1] * 0 + stride, "float32"))
        return Cells(paddle.concat(centres), paddle.concat(strides))

    def _detection_loss(
        self,
        boxes: Sequence[paddle.Tensor],
        classes: Sequence[paddle.Tensor],
        targets: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
    ) -> tuple[dict[str, paddle.Tensor], losses.Objects, losses.Matches]:
        size = (int(image_size[0]), int(image_size[1]))
        with paddle.amp.auto_cast(enable=False):
            cells, bins, logits = self._cells(boxes), joined(boxes), joined(classes)
            objects = losses.read_objects(targets, len(logits), self.num_classes)
            with paddle.no_grad():
                found = decode_boxes(bins, cells, self.bins)
            matches = losses.match(objects, found, logits, cells, size, top_k=self.top_k)
            box, distribution = losses.box_losses(bins, cells, objects, matches, size)
            label = losses.class_loss(logits, objects, matches)
        terms = {"box": box, "dfl": distribution, "cls": label}
        return {f"loss_{name}": self.weights[name] * term for name, term in terms.items()}, objects, matches
