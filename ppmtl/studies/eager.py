"""The training graph for deploy/python/benchmark.py, which asks for it by name: deployment imports no training code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from ppmtl import build
from ppmtl.models.backend import PaddleBackend


class EagerModel(PaddleBackend):
    """The model in evaluation mode, without gradients; backbone and heads can also be run apart, on tensors."""

    @paddle.no_grad()
    def features(self, images: np.ndarray) -> dict[str, Any]:
        """Feature maps and the input's size."""
        maps = self._model.backbone(self._model.normalise(paddle.to_tensor(images)))
        return {"maps": maps, "size": (images.shape[1], images.shape[2])}

    @paddle.no_grad()
    def head(self, name: str, features: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One task's raw arrays for what :meth:`features` returned."""
        raw = self._model.head(name)(features["maps"], features["size"])
        return {key: value.numpy() for key, value in raw.items()}


def open_model(config: str, overrides: Sequence[str], tasks: Sequence[str]) -> EagerModel:
    """The model of a config, with the weights that its overrides name, on CPU.

    Raises:
        ValueError: if the config has mistakes or names no weights.
    """
    _, model = build.load_model(build.load(config, [*overrides, "device=cpu"], tasks).settings)
    model.eval()
    return EagerModel(model)
