"""Normalise -> backbone -> heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import paddle
from paddle import nn

Terms = dict[str, dict[str, paddle.Tensor]]


class MultiTaskModel(nn.Layer):
    """One backbone, one head per task; the backbone runs once however many heads are asked for.

    Args:
        backbone: maps (B, 3, H, W) to a list of feature maps.
        heads: {task: head}.
        mean, std: of RGB in 0..1. They live here and nowhere else, so training, export and serving cannot disagree.
    """

    def __init__(
        self,
        backbone: nn.Layer,
        heads: Mapping[str, nn.Layer],
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.LayerDict(dict(heads))
        shift = np.asarray(mean, np.float32).reshape(1, 3, 1, 1)
        scale = 1 / (255 * np.asarray(std, np.float32).reshape(1, 3, 1, 1))
        self.register_buffer("scale", paddle.to_tensor(scale), persistable=False)
        self.register_buffer("offset", paddle.to_tensor(-shift * 255 * scale), persistable=False)

    def forward(
        self,
        images: paddle.Tensor,
        tasks: Sequence[str] | None = None,
        targets: Mapping[str, Mapping[str, paddle.Tensor]] | None = None,
    ) -> Terms:
        """Returns {task: loss terms} when there are targets, else {task: raw arrays}.

        Args:
            images: (B, H, W, 3) uint8 or float32 0..255, RGB.
            tasks: which heads to run; None = all, or with targets the heads that have some. Others are not executed.
            targets: {task: {name: tensor}}.
        """
        names = list(targets) if targets is not None else list(tasks or self.heads.keys())
        x = images.astype("float32").transpose([0, 3, 1, 2]) * self.scale + self.offset
        size = x.shape[2:] if -1 not in x.shape[2:] else paddle.shape(x)[2:]  # -1: traced with a dynamic size
        features = self.backbone(x)
        return {
            name: self.heads[name](features, size, None if targets is None else targets[name]) for name in names
        }
