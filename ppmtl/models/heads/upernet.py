"""UPerNet for semantic segmentation, wired as in PaddleSeg, without its unused ``conv_last``.

Source: Xiao et al., "Unified Perceptual Parsing", ECCV 2018; PaddleSeg's wiring in reference/model.md section 2;
outputs equal PaddleSeg's on golden upernet_forward.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import paddle
import paddle.nn.functional as F
from annotated_types import Ge, Interval
from paddle import nn

from ppmtl.models.base import Head, Side
from ppmtl.models.heads._pixel_loss import pixel_cross_entropy
from ppmtl.models.layers import Conv2D, ConvBNReLU, resize
from ppmtl.structures import FeatureSpec

Channels = Annotated[int, Ge(1)]


class UPerNet(Head):
    """Pyramid pooling on the coarsest level, a top-down pyramid, one classifier on the finest.

    Args:
        reads: the features it reads, finest first; None = all.
        channels: width of the pyramid [channels].
        ppm_channels: width of each pooling branch [channels]; None = a quarter of the coarsest level's, as in PaddleSeg.
        bins: output sizes of the pooling branches [cells].
        aux_weight: [factor] of the auxiliary loss on the second coarsest level; 0 = no auxiliary head.
        aux_channels: its width [channels]; None = that level's own, as in PaddleSeg (mmseg uses 256).
        align_corners: of resizing inside the head. PaddleSeg: true. The last resize to the input's size never aligns.
        dropout: [probability] before the auxiliary classifier (PaddleSeg's main path has none).

    Raises:
        ValueError: if there are fewer than two levels, they are not finest first, or there are no bins.
    """

    task_type = "segmentation"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, ...] | None = None,
        channels: Channels = 512,
        ppm_channels: Channels | None = None,
        bins: tuple[Channels, ...] = (1, 2, 3, 6),
        aux_weight: Annotated[float, Ge(0)] = 0.4,
        aux_channels: Channels | None = None,
        align_corners: bool = True,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.reads = self.choose(in_specs, reads, default=tuple(in_specs))
        strides = {name: in_specs[name].stride for name in self.reads}
        if len(strides) < 2 or list(strides.values()) != sorted(set(strides.values())) or not bins:
            raise ValueError(
                f"UPerNet needs at least two levels, finest first, and one bin; got strides {strides}, bins {bins}"
            )
        *finer, last = [in_specs[name].channels for name in self.reads]
        branch = ppm_channels or max(1, last // len(bins))
        self.bins, self.align_corners, self.aux_weight = bins, align_corners, aux_weight
        self.ppm = nn.LayerList([ConvBNReLU(last, branch, 1, bias=True) for _ in bins])
        self.ppm_bottleneck = ConvBNReLU(last + branch * len(bins), channels, 3, bias=True)
        self.laterals = nn.LayerList([ConvBNReLU(c, channels, 1, bias=True) for c in finer])
        self.fpn_convs = nn.LayerList([ConvBNReLU(channels, channels, 3, bias=False) for _ in finer])
        self.fpn_bottleneck = ConvBNReLU(channels * len(self.reads), channels, 3, bias=True)
        self.classifier = Conv2D(channels, num_classes, 1)
        self.aux = None
        if aux_weight > 0:
            width = aux_channels or finer[-1]
            self.aux = nn.Sequential(
                ConvBNReLU(finer[-1], width, 3, bias=True),
                nn.Dropout(dropout),
                Conv2D(width, num_classes, 1),
            )

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """{"probs": (B, C, H, W)}, or the loss terms when there are targets ({"label_map": (B, H, W) int64})."""
        size = list(image_size)
        levels = [features[name] for name in self.reads]
        logits = self.logits(levels)
        if targets is None:
            return {"probs": F.softmax(resize(logits.astype("float32"), size, align_corners=False), axis=1)}
        terms = {"loss_ce": pixel_cross_entropy(logits, targets["label_map"])}
        if self.aux is not None:
            terms["loss_aux"] = self.aux_weight * pixel_cross_entropy(self.aux(levels[-2]), targets["label_map"])
        return terms

    def logits(self, features: list[paddle.Tensor]) -> paddle.Tensor:
        """(B, C, h, w) at the finest level's size; ``features`` are those that the head reads, in order."""
        # Indices, not zip(strict=True): Paddle's exporter rewrites zip and does not know the keyword.
        levels = [lateral(features[i]) for i, lateral in enumerate(self.laterals)]
        levels.append(self._pyramid_pooling(features[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + self._resize_like(levels[i], levels[i - 1])
        outputs = [conv(levels[i]) for i, conv in enumerate(self.fpn_convs)] + [levels[-1]]
        outputs = outputs[:1] + [self._resize_like(x, outputs[0]) for x in outputs[1:]]
        return self.classifier(self.fpn_bottleneck(paddle.concat(outputs, axis=1)))

    def _pyramid_pooling(self, x: paddle.Tensor) -> paddle.Tensor:
        pooled = [self._resize_like(conv(_bin_means(x, self.bins[i])), x) for i, conv in enumerate(self.ppm)]
        return self.ppm_bottleneck(paddle.concat([x, *pooled[::-1]], axis=1))  # coarse bins last, as in PaddleSeg

    def _resize_like(self, x: paddle.Tensor, reference: paddle.Tensor) -> paddle.Tensor:
        size = reference.shape[2:] if paddle.in_dynamic_mode() else paddle.shape(reference)[2:]
        return resize(x, size, align_corners=self.align_corners)


def _bin_means(x: paddle.Tensor, bins: int) -> paddle.Tensor:
    """The means of ``bins`` x ``bins`` overlapping cells, (B, C, bins, bins)."""
    if paddle.in_dynamic_mode():
        return F.adaptive_avg_pool2d(x, bins)
    # The exported graph adds up with matrices of 0 and 1 and divides by the areas. The pooling operator fails in Paddle
    # Inference 3.2.2 with oneDNN on maps smaller than ``bins`` and cannot be converted to ONNX at a free size.
    size = paddle.cast(paddle.shape(x)[2:], "int64")
    rows, row_counts = _bin_members(size[0], bins)
    columns, column_counts = _bin_members(size[1], bins)
    # F.linear: paddle.matmul of Paddle 3.2.2 takes only the new format's variables
    sums = F.linear(F.linear(x, columns).transpose([0, 1, 3, 2]), rows).transpose([0, 1, 3, 2])
    return sums * paddle.reciprocal(row_counts.unsqueeze(1) * column_counts)


def _bin_members(length: paddle.Tensor, bins: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Which of ``length`` positions lie in which bin, (length, bins) of 0 and 1, and how many do, (bins,)."""
    index = paddle.arange(bins, dtype="int64")
    first, end = index * length // bins, ((index + 1) * length + (bins - 1)) // bins
    place = paddle.arange(length, dtype="int64").unsqueeze(1)
    inside = (place >= first) & (place < end)
    return paddle.cast(inside, "float32"), paddle.cast(end - first, "float32")
