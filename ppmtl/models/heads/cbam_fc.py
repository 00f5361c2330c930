"""Classification head: convolution, CBAM, global average pooling, one linear layer.

Source: the paper's "conv layer, CBAM, FC" on the last stage; arrangement in reference/model.md section 3; CBAM: Woo et
al., ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import paddle
import paddle.nn.functional as F
from annotated_types import Ge, Interval
from paddle import nn

from ppmtl.models.base import Head, Side
from ppmtl.models.heads._labelled import labelled_mean
from ppmtl.models.layers import Conv2D, ConvBNReLU, sigmoid
from ppmtl.structures import FeatureSpec


class _CBAM(nn.Layer):
    """Channel attention, then spatial attention.

    The spatial branch takes the maximum over channels. The challenge's baseline took the arg-maximum, an index up to
    C - 1 without gradient that saturates the sigmoid; golden cbam.json holds both, and this is the paper's.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = Conv2D(channels, max(1, channels // reduction), 1)
        self.fc2 = Conv2D(max(1, channels // reduction), channels, 1)
        self.conv_after_concat = Conv2D(2, 1, 7, padding=3)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        pooled = (x.mean([2, 3], keepdim=True), _largest_in_map(x))
        x = x * sigmoid(paddle.add_n([self.fc2(F.relu(self.fc1(p))) for p in pooled]))
        where = paddle.concat([x.mean(1, keepdim=True), _largest_in_channels(x)], axis=1)
        return x * sigmoid(self.conv_after_concat(where))


# Maxima by pooling: on CPU the gradient of ``max`` took a fifth of a training step (docs/benchmarks.md). They differ where
# several values are the largest: pooling gives the gradient to one of them, ``max`` to all. Exported graphs keep ``max``,
# which every engine knows for any size.


def _largest_in_map(x: paddle.Tensor) -> paddle.Tensor:
    """(B, C, 1, 1)."""
    return F.adaptive_max_pool2d(x, 1) if paddle.in_dynamic_mode() else x.max(axis=[2, 3], keepdim=True)


def _largest_in_channels(x: paddle.Tensor) -> paddle.Tensor:
    """(B, 1, H, W)."""
    if not paddle.in_dynamic_mode():
        return x.max(axis=1, keepdim=True)
    batch, channels, height, width = x.shape
    rows = F.max_pool2d(x.reshape([batch, 1, channels, height * width]), (channels, 1))
    return rows.reshape([batch, 1, height, width])


class CBAMFC(Head):
    """One class per image from one feature map.

    Args:
        reads: the feature it reads; None = the coarsest.
        channels: width after the convolution [channels]; None = the feature's own (1536 for ConvNeXt-L).
        kernel_size: of the convolution [cells]; odd, so that the map keeps its size.
        reduction: [factor] of CBAM's channel bottleneck.
        label_smoothing: [share] of a target that the other classes get; 0 in the paper; the baseline had
            .1, spread over the other classes only.
        dropout: [probability] before the linear layer.

    Raises:
        ValueError: if ``kernel_size`` is even.
    """

    task_type = "classification"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: str | None = None,
        channels: Annotated[int, Ge(1)] | None = None,
        kernel_size: Annotated[int, Ge(1)] = 3,
        reduction: Annotated[int, Ge(1)] = 16,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"CBAMFC: kernel_size must be odd to keep the map's size, got {kernel_size}; try 1 or 3")
        self.reads = self.choose(in_specs, None if reads is None else (reads,), default=tuple(in_specs)[-1:])
        spec = in_specs[self.reads[0]]
        width = channels or spec.channels
        self.conv = ConvBNReLU(spec.channels, width, kernel_size, bias=False)
        self.cbam = _CBAM(width, reduction)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],  # noqa: ARG002
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """{"probs": (B, C)}, or the loss terms when there are targets (see ``class_cross_entropy``)."""
        x = self.cbam(self.conv(features[self.reads[0]])).mean([2, 3])
        logits = self.fc(self.dropout(x)).astype("float32")
        if targets is None:
            return {"probs": F.softmax(logits, axis=1)}
        return {"loss_ce": class_cross_entropy(logits, targets, self.label_smoothing)}


def class_cross_entropy(logits: paddle.Tensor, targets: Mapping[str, paddle.Tensor], smoothing: float) -> paddle.Tensor:
    """The mean cross entropy of the labelled images, 0-D float32; ``smoothing`` of each target is spread over the others.

    Args:
        logits: (B, C) float32.
        targets: {"class_index": (B,) int64, -1 = no label}, and {"class_shares": (B, C)} where an image shows several.
        smoothing: 0 to 1; without effect where there is one class only.
    """
    labels, num_classes = targets["class_index"], logits.shape[1]
    known = paddle.clip(labels, min=0)  # no operator below knows of -1
    if "class_shares" in targets or (smoothing > 0 and num_classes > 1):
        shares = targets["class_shares"] if "class_shares" in targets else F.one_hot(known, num_classes)
        off = smoothing / max(num_classes - 1, 1)
        losses = F.cross_entropy(logits, shares * (1 - smoothing - off) + off, soft_label=True, reduction="none")
    else:
        losses = F.cross_entropy(logits, known, reduction="none")
    return labelled_mean(losses, labels >= 0)
