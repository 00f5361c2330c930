"""The training graph as a backend of the inference pipeline."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn


class PaddleBackend:
    """Runs a model in evaluation mode, without gradients; its previous mode comes back afterwards."""

    def __init__(self, model: nn.Layer) -> None:
        self._model = model

    @paddle.no_grad()
    def __call__(self, images: np.ndarray, tasks: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
        """{task: raw arrays} of (B, H, W, 3) uint8 RGB images."""
        was_training = self._model.training
        self._model.eval()
        try:
            raw = self._model(paddle.to_tensor(images), tasks=tasks)
        finally:
            if was_training:
                self._model.train()
        return {task: {name: value.numpy() for name, value in arrays.items()} for task, arrays in raw.items()}
