"""Semantic segmentation of YOLOR-MT: one 1x1 convolution on the finest level, and the multi-scale arm of its ablation.

Source: reference/yolor_mtl.md sections 1.6 and 2.1; the loss equals the reference's on golden yolor/semantic_loss.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import paddle
import paddle.nn.functional as F
from annotated_types import Ge
from paddle import nn

from ppmtl.models.base import Head, Side, of_strides
from ppmtl.models.layers import ConvBNSiLU, Implicit
from ppmtl.structures import IGNORE_LABEL, FeatureSpec

STRIDES = (8, 16, 32)
ALPHA = 0.25  # of the focal loss; its gamma is 2


class Semantic(Head):
    """One class per cell of ``out_stride`` pixels.

    Args:
        reads: None = the backbone's only feature of stride 8, for ``scale: multi`` those of stride 8, 16 and 32.
        scale: "single" is the paper's: 44,461 parameters for 256 channels and 173 classes. "multi" brings three levels to
            one width, adds them up and has a 3x3 convolution before the classifier: 777,773 at full size, where the paper
            says 778.8K for an arm that it does not describe.
        out_stride: side of a cell [px] of the output and of the loss. The paper's study has 1 and 4.
        channels: width of the multi-scale arm [channels]; its 3x3 convolution halves it.
        implicit: learned vectors around the classifier.
        focal_weight: [factor] of the mean focal loss over cells and classes.
        dice_weight: [factor] of 1 - dice over the entire batch.

    Raises:
        ValueError: if the features do not fit ``scale``.
    """

    task_type = "segmentation"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, ...] | None = None,
        scale: Literal["single", "multi"] = "single",
        out_stride: Literal[1, 2, 4, 8] = 4,
        channels: Annotated[int, Ge(2)] = 256,
        implicit: bool = True,
        focal_weight: Annotated[float, Ge(0)] = 25.0,
        dice_weight: Annotated[float, Ge(0)] = 1.25,
    ) -> None:
        super().__init__()
        wanted = STRIDES[:1] if scale == "single" else STRIDES
        self.reads = self.choose(in_specs, reads, default=of_strides(in_specs, wanted))
        strides = [in_specs[name].stride for name in self.reads]
        if strides != sorted(set(strides)) or (len(strides) == 1) != (scale == "single") or not strides:
            raise ValueError(
                f"Semantic with scale: {scale} reads {'one feature' if scale == 'single' else 'several, finest first'}, by "
                f"default of stride {', '.join(map(str, wanted))}; got strides {strides}: name them with reads"
            )
        self.num_classes, self.out_stride = num_classes, out_stride
        self.focal_weight, self.dice_weight = focal_weight, dice_weight
        width = in_specs[self.reads[0]].channels
        self.fusion = None
        if scale == "multi":
            self.fusion = _Fusion([in_specs[name].channels for name in self.reads], channels)
            width = channels // 2
        # Every class begins with probability 1 / C, not 1 / 2 (Lin et al. 2017, sec. 3.3): otherwise hundreds of steps go by
        # before anything but "no class" is learned. The softmax does not see it.
        prior = nn.initializer.Constant(-math.log(max(num_classes - 1, 1)))
        self.classifier = nn.Conv2D(width, num_classes, 1, bias_attr=paddle.ParamAttr(initializer=prior))
        self.implicit = Implicit(self.classifier, enabled=implicit)

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """{"probs": (B, C, H / out_stride, W / out_stride)}, rounded down, or the loss terms when there are targets.

        Targets are {"label_map": (B, H, W) int64}; of every cell the pixel in the middle counts, 255 is no label.
        """
        levels = [features[name] for name in self.reads]
        x = levels[0] if self.fusion is None else self.fusion(levels)
        size = [side // self.out_stride for side in image_size]
        logits = F.interpolate(self.implicit(x).astype("float32"), size=size, mode="bilinear")
        if targets is None:
            return {"probs": F.softmax(logits, axis=1)}
        step = self.out_stride
        labels = targets["label_map"][:, step // 2 :: step, step // 2 :: step][:, : size[0], : size[1]]
        known = labels != IGNORE_LABEL
        truth = F.one_hot(paddle.where(known, labels, paddle.zeros_like(labels)), self.num_classes).transpose(
            [0, 3, 1, 2]
        )
        with paddle.amp.auto_cast(enable=False):
            focal, dice = semantic_losses(logits, truth, known.unsqueeze(1).astype("float32"))
        return {"loss_focal": self.focal_weight * focal, "loss_dice": self.dice_weight * dice}


class _Fusion(nn.Layer):
    """Levels of several strides -> one of the finest."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.LayerList([ConvBNSiLU(width, channels, 1) for width in widths])
        self.conv = ConvBNSiLU(channels, channels // 2, 3)

    def forward(self, levels: Sequence[paddle.Tensor]) -> paddle.Tensor:
        x = self.laterals[0](levels[0])
        size = paddle.shape(x)[2:]
        for i in range(1, len(levels)):
            x = x + F.interpolate(self.laterals[i](levels[i]), size=size, mode="bilinear")
        return self.conv(x)


def semantic_losses(
    logits: paddle.Tensor, truth: paddle.Tensor, known: paddle.Tensor
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The mean sigmoid focal loss and 1 - dice of the softmax, 0-D; both 0 when nothing is known.

    Args:
        logits: (B, C, h, w).
        truth: (B, C, h, w) float32 0 or 1; a cell may have several classes.
        known: (B, 1, h, w) float32, 0 for cells without a label.
    """
    count = paddle.clip(known.sum() * logits.shape[1], min=1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = paddle.abs(truth - F.sigmoid(logits))  # 1 - the probability of what is true
    balance = truth * ALPHA + (1 - truth) * (1 - ALPHA)
    focal = (entropy * missed.square() * balance * known).sum() / count
    share, truth = F.softmax(logits, axis=1) * known, truth * known
    dice = (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1)
    return focal, 1 - dice
