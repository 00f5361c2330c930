"""SETR-PUP for semantic segmentation, as in PaddleSeg and the challenge's baseline.

Source: Zheng et al., "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers", CVPR
2021; reference/challenge.md section 4; outputs equal PaddleSeg's (docs/parity.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import paddle
import paddle.nn.functional as F
from annotated_types import Ge
from paddle import nn

from ppmtl.models.base import Head, Side
from ppmtl.models.heads._pixel_loss import pixel_cross_entropy
from ppmtl.models.layers import ChannelLayerNorm, Conv2D, ConvBNReLU, resize
from ppmtl.structures import FeatureSpec
from ppmtl.weights.names import Naming

_RULES = (
    (r"^head\.cls_head_norm\.", "norm."),
    *((rf"^head\.cls_head\.{2 * i}\.", f"convs.{i}.") for i in range(4)),
    (r"^head\.cls_head\.7\.", "classifier."),
    (r"^head\.aux_head_norms\.(\d)\.", r"aux.\1.norm."),
    (r"^head\.aux_heads\.(\d)\.0\.", r"aux.\1.conv."),
    (r"^head\.aux_heads\.(\d)\.2\.", r"aux.\1.classifier."),
    (r"\._conv\.", ".conv."),
    (r"\._batch_norm\.", ".bn."),
)


class SETRPUP(Head):
    """Four convolutions with three doublings between them on the last feature; an auxiliary classifier on each feature.

    Args:
        reads: the features it reads; the last one is answered from. With a ViT: tokens5, tokens7, tokens9, tokens11.
            None = the backbone's last.
        channels: width of the convolutions [channels].
        aux_weight: [factor] of each auxiliary loss; 0 = no auxiliary classifiers.
        shared_aux: one auxiliary classifier for all features, as in the baseline and in PaddleSeg, whose code repeats one
            module where it meant several. False = one each.
        align_corners: of the last resize to the input's size; the doublings never align. The baseline: true.

    Raises:
        ValueError: if the features differ in their channels and one auxiliary classifier is to serve them all.
    """

    task_type = "segmentation"

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: tuple[str, ...] | None = None,
        channels: Annotated[int, Ge(1)] = 256,
        aux_weight: Annotated[float, Ge(0)] = 0.4,
        shared_aux: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.reads = self.choose(in_specs, reads, default=tuple(in_specs)[-1:])
        widths = [in_specs[name].channels for name in self.reads]
        if shared_aux and len(set(widths)) > 1:
            raise ValueError(f"SETRPUP: shared_aux needs features with as many channels each, got {widths}")
        self.align_corners, self.aux_weight, self.shared_aux = align_corners, aux_weight, shared_aux
        # Of a shared classifier their files hold one copy per feature
        inside = r"head\.(cls_head|aux_head\w*\.0\.)" if shared_aux else r"head\."
        self.weight_names = (Naming("PaddleSeg", r"head\.cls_head_norm\.weight", inside, _RULES),)
        self.norm = ChannelLayerNorm(widths[-1])
        self.convs = nn.LayerList(
            ConvBNReLU(widths[-1] if i == 0 else channels, channels, 3, bias=True) for i in range(4)
        )
        self.classifier = Conv2D(channels, num_classes, 1)
        own = 0 if aux_weight == 0 else 1 if shared_aux else len(widths)
        self.aux = nn.LayerList(_Auxiliary(width, channels, num_classes) for width in widths[:own])

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """{"probs": (B, C, H, W)}, or the loss terms when there are targets ({"label_map": (B, H, W) int64})."""
        logits = self.logits(features[self.reads[-1]])  # the others only where there is an auxiliary loss
        if targets is None:
            logits = resize(logits.astype("float32"), list(image_size), align_corners=self.align_corners)
            return {"probs": F.softmax(logits, axis=1)}
        terms = {"loss_ce": self._loss(logits, targets)}
        if self.aux_weight > 0:
            each = self.aux_logits([features[name] for name in self.reads])
            terms["loss_aux"] = self.aux_weight * paddle.add_n([self._loss(x, targets) for x in each])
        return terms

    def logits(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, C, 8 h, 8 w) of the last feature, (B, channels, h, w)."""
        x = self.norm(x)
        for i in range(len(self.convs)):
            x = self.convs[i](_enlarged(x, 2) if i else x)
        return self.classifier(x)

    def aux_logits(self, features: list[paddle.Tensor]) -> list[paddle.Tensor]:
        """(B, C, 4 h, 4 w) of each feature that the head reads, in order."""
        return [self.aux[0 if self.shared_aux else i](x) for i, x in enumerate(features)]

    def _loss(self, logits: paddle.Tensor, targets: Mapping[str, paddle.Tensor]) -> paddle.Tensor:
        return pixel_cross_entropy(logits, targets["label_map"], align_corners=self.align_corners)


class _Auxiliary(nn.Layer):
    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(in_channels)
        self.conv = ConvBNReLU(in_channels, channels, 3, bias=True)
        self.classifier = Conv2D(channels, num_classes, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.classifier(_enlarged(self.conv(self.norm(x)), 4))


def _enlarged(x: paddle.Tensor, factor: int) -> paddle.Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
