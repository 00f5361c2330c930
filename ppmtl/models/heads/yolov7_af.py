"""Anchor-free detection with masks: prototypes and coefficients as in YOLACT, on the assignment of the boxes.

Source: Bolya et al., "YOLACT", ICCV 2019; widths in reference/yolor_mtl.md section 1.5; outputs equal the reference's on golden
yolor/yolov7_af_body.json, the loss on mask_loss.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import paddle
import paddle.nn.functional as F
from annotated_types import Ge
from paddle import nn

from ppmtl.models.base import Side
from ppmtl.models.heads import _yolov7_af_loss as losses
from ppmtl.models.heads._yolov7_af_parts import Branch, joined
from ppmtl.models.heads.yolov7_af_boxes import Weight, YOLOv7AFBoxes
from ppmtl.models.layers import ConvBNSiLU
from ppmtl.structures import FeatureSpec


class _Prototypes(nn.Layer):
    """The finest map at twice its size, one channel per prototype; activated, as in the reference."""

    def __init__(self, in_channels: int, hidden: int, count: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvBNSiLU(in_channels, hidden, 3), ConvBNSiLU(hidden, hidden, 3)
        self.conv3 = ConvBNSiLU(hidden, count, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv3(self.conv2(F.interpolate(self.conv1(x), scale_factor=2, mode="nearest")))


class YOLOv7AF(YOLOv7AFBoxes):
    """Anchor-free instance segmentation: a mask is the sigmoid of a sum of prototypes, cut to its box.

    Args:
        reads: the features, finest first; None = the backbone's only ones of stride 8, 16 and 32. Prototypes are made from
            the finest, at half its stride.
        implicit: learned vectors around the last convolution of every branch.
        prototypes: how many [prototypes].
        prototype_channels: width of the convolutions before them [channels]; None = the finest feature's.
        box_weight: [factor] of 1 - CIoU.
        distribution_weight: [factor] of the distribution focal term.
        class_weight: [factor] of the class term.
        mask_weight: [factor] of the mask term.
        top_k: [cells] that answer for an object at most.
    """

    task_type = "instances"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, ...] | None = None,
        implicit: bool = True,
        prototypes: Annotated[int, Ge(1)] = 32,
        prototype_channels: Annotated[int, Ge(1)] | None = None,
        box_weight: Weight = 7.5,
        distribution_weight: Weight = 1.5,
        class_weight: Weight = 0.5,
        mask_weight: Weight = 2.5,
        top_k: Annotated[int, Ge(1)] = 10,
    ) -> None:
        super().__init__(
            in_specs,
            num_classes,
            reads=reads,
            implicit=implicit,
            box_weight=box_weight,
            distribution_weight=distribution_weight,
            class_weight=class_weight,
            top_k=top_k,
        )
        widths = [in_specs[name].channels for name in self.reads]
        hidden = max(widths[0] // 4, prototypes)
        self.weights["mask"] = mask_weight
        self.prototypes = _Prototypes(widths[0], prototype_channels or widths[0], prototypes)
        self.coefficients = nn.LayerList([Branch(width, hidden, prototypes) for width in widths])
        self._add_implicit("coefficients", self.coefficients)

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """The loss terms when there are targets, else boxes, scores and what the masks are made of.

        Args:
            features, image_size: as for every head.
            targets: {"boxes": (M, 6), "masks": (M, H/4, W/4) uint8, "has_mask": (M,)[, "supervised": (B,)]}.

        Returns:
            "boxes" (B, N, 4) xyxy input pixels, "scores" (B, N, C), "coefficients" (B, N, K), "prototypes" (B, K, h, w) at
            half the finest stride, all float32.
        """
        levels = [features[name] for name in self.reads]
        boxes, classes = self._detection_maps(levels)
        coefficients = joined(self._maps("coefficients", self.coefficients, levels))
        prototypes = paddle.cast(self.prototypes(levels[0]), "float32")
        if targets is None:
            masks = {"coefficients": coefficients.transpose([0, 2, 1]), "prototypes": prototypes}
            return self._decoded(boxes, classes) | masks
        terms, objects, matches = self._detection_loss(boxes, classes, targets, image_size)
        with paddle.amp.auto_cast(enable=False):
            mask = losses.mask_loss(coefficients, prototypes, objects, matches, targets["masks"], targets["has_mask"])
        return terms | {"loss_mask": self.weights["mask"] * mask}
