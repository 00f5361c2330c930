"""The training graph for deploy/python/benchmark.py, which asks for it by name because deployment imports no training code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import paddle

from ppmtl import cli
from ppmtl.models.backend import PaddleBackend
from ppmtl.models.multitask import MultiTaskModel


class EagerModel(PaddleBackend):
    """The model in evaluation mode, without gradients; trunk and heads can also be run apart."""

    def __init__(self, model: MultiTaskModel) -> None:
        model.eval()
        super().__init__(model)
        self._parts = model

    @paddle.no_grad()
    def features(self, images: np.ndarray) -> dict[str, list[paddle.Tensor] | tuple[int, int]]:
        """Returns the feature maps and the input's size; they stay tensors, as they do inside the model."""
        maps = self._parts.backbone(self._parts.normalise(paddle.to_tensor(images)))
        return {"maps": maps, "size": (images.shape[1], images.shape[2])}

    @paddle.no_grad()
    def head(self, name: str, features: Mapping[str, list[paddle.Tensor] | tuple[int, int]]) -> dict[str, np.ndarray]:
        """Returns one task's raw arrays for what :meth:`features` returned."""
        raw = self._parts.heads[name](features["maps"], features["size"])
        return {key: value.numpy() for key, value in raw.items()}


def open_model(config: str, overrides: Sequence[str], tasks: Sequence[str]) -> EagerModel:
    """Returns the model of a config, with the weights that its overrides name, on CPU.

    Raises:
        ValueError: if the config has mistakes or names no weights.
    """
    flags = ["-c", config, "--tasks", ",".join(tasks), "--device", "cpu"]
    settings, _ = cli.load_settings(cli.parser("").parse_args([*flags, *(["-o", *overrides] if overrides else [])]))
    cli.require_weights(settings)
    _, model = cli.load_model(settings)
    return EagerModel(model)
