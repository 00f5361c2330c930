"""Classification head of the challenge's baseline: global average, two linear layers.

Source: reference/challenge.md section 4; 0.37 M parameters for 196 classes on a ViT-B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import paddle
import paddle.nn.functional as F
from annotated_types import Ge, Interval
from paddle import nn

from ppmtl.models.base import Head, Side
from ppmtl.models.heads.cbam_fc import class_cross_entropy
from ppmtl.structures import FeatureSpec
from ppmtl.weights.names import Naming


class PooledFC(Head):
    """One class per image from the mean of one feature map. There is no activation between the layers, as in the baseline.

    Args:
        reads: the feature it reads; None = the backbone's last. The baseline reads stride 32, a ViT's "p5".
        hidden: width between the layers [channels]; None = half of the feature's channels.
        label_smoothing: [share] of the target that the other classes get, evenly.
    """

    task_type = "classification"
    weight_names = (Naming("the baseline", r"heads\.fgvc\.fc1\.weight", r"heads\.fgvc\.", ((r"^heads\.fgvc\.", ""),)),)

    def __init__(
        self,
        in_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        reads: str | None = None,
        hidden: Annotated[int, Ge(1)] | None = None,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.reads = self.choose(in_specs, None if reads is None else (reads,), default=tuple(in_specs)[-1:])
        channels = in_specs[self.reads[0]].channels
        width = hidden or max(1, channels // 2)
        self.fc1, self.fc2 = nn.Linear(channels, width), nn.Linear(width, num_classes)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],  # noqa: ARG002
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """{"probs": (B, C)}, or the loss terms when there are targets ({"class_index": (B,) int64})."""
        logits = self.fc2(self.fc1(features[self.reads[0]].mean([2, 3]))).astype("float32")
        if targets is None:
            return {"probs": F.softmax(logits, axis=1)}
        return {"loss_ce": class_cross_entropy(logits, targets, self.label_smoothing)}
