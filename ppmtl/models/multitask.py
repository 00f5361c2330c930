"""Normalise -> backbone -> heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import paddle
from paddle import nn

from ppmtl.models.base import Backbone, Head

Terms = dict[str, dict[str, paddle.Tensor]]
Triple = tuple[float, float, float]
MeanStd = tuple[Sequence[float], Sequence[float]]


class MultiTaskModel(nn.Layer):
    """One backbone and its heads; the backbone runs once however many tasks are asked for.

    Args:
        backbone: maps (B, 3, H, W) to named features.
        heads: {name: head}.
        answers: {head: task that it answers}; heads not named answer the task of their own name.
        mean, std: of RGB in 0..1. They live here and nowhere else, so training, export and serving cannot disagree.
        own: {head: its own (mean, std)}. Tasks whose images are normalised differently do not share a run of the backbone.

    Raises:
        ValueError: if there is no head, two heads answer one task, or mean and std are not three numbers with std > 0.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, Head],
        *,
        answers: Mapping[str, str] | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        own: Mapping[str, MeanStd] | None = None,
    ) -> None:
        super().__init__()
        if not heads:
            raise ValueError("MultiTaskModel needs at least one head, got none")
        self.backbone = backbone
        self.heads = nn.LayerDict(dict(heads))
        self.head_of = {(answers or {}).get(name, name): name for name in heads}  # {task: the head that answers it}
        if len(self.head_of) != len(heads):
            raise ValueError(f"every head must answer a task of its own, got {answers}")
        self.frozen: frozenset[str] = frozenset()
        suffixes = {_checked(mean, std): ""}  # {(mean, std): of the names of its two buffers}
        own_suffixes = {head: suffixes.setdefault(_checked(*pair), f"_{head}") for head, pair in (own or {}).items()}
        for pair, suffix in suffixes.items():
            for name, value in zip(("scale", "offset"), pixel_affine(*pair), strict=True):
                self.register_buffer(name + suffix, paddle.to_tensor(value.reshape(1, 3, 1, 1)), persistable=False)
        self._suffix_of = {task: own_suffixes.get(head, "") for task, head in self.head_of.items()}

    def head(self, task: str) -> Head:
        """The head that answers ``task``; raises ValueError if there is none."""
        if task not in self.head_of:
            raise ValueError(f"the model has no head for '{task}'; its tasks are {', '.join(self.head_of)}")
        return self.heads[self.head_of[task]]

    def train(self) -> MultiTaskModel:
        """Training mode, except for the sublayers named in ``frozen`` (train/freeze.py).

        Call it on this model, not on what was wrapped around it for several processes: Paddle's ``train`` sets the mode
        of all layers below by itself and would thaw the frozen ones.
        """
        super().train()
        for name, layer in self.named_sublayers():
            if name in self.frozen:
                layer.training = False
        return self

    def forward(
        self,
        images: paddle.Tensor,
        tasks: Sequence[str] | None = None,
        targets: Mapping[str, Mapping[str, paddle.Tensor]] | None = None,
    ) -> Terms:
        """{task: loss terms} when there are targets, else {task: raw arrays}.

        Args:
            images: (B, H, W, 3) uint8 or float32 0..255, RGB.
            tasks: which tasks to answer; None = all, or with targets those that have some. Other heads are not run.
            targets: {task: {name: tensor}}; its keys are the tasks to answer, whatever ``tasks`` says.

        Raises:
            ValueError: if a task has no head, or the images are not (B, H, W, 3) (not checked while exporting).
        """
        names = list(targets if targets is not None else self.head_of if tasks is None else tasks)
        heads = {name: self.head(name) for name in names}
        if paddle.in_dynamic_mode() and (images.ndim != 4 or images.shape[3] != 3):
            raise ValueError(f"the model takes images (B, H, W, 3) RGB, got shape {images.shape}")
        # Tasks that see the same numbers share a run. Comprehensions: Paddle's exporter rewrites loops, and not all of them
        shown = {suffix: self._normalised(images, suffix) for suffix in {self._suffix_of[name]: 0 for name in names}}
        # Tensors while a graph is exported, so that one file serves every input size. Asked of the mode and not of the
        # shape: there the tracer turns an unknown side into a tensor, which no Python comparison can see through. And
        # asked of x: the old graph format has no shape of uint8.
        x = shown[self._suffix_of[names[0]]]
        size = x.shape[2:] if paddle.in_dynamic_mode() else paddle.shape(x)[2:]
        features = {suffix: self.backbone(x) for suffix, x in shown.items()}
        return {
            name: head(features[self._suffix_of[name]], (size[0], size[1]), None if targets is None else targets[name])
            for name, head in heads.items()
        }

    def normalise(self, images: paddle.Tensor, task: str | None = None) -> paddle.Tensor:
        """What the backbone sees, (B, 3, H, W) float32, of (B, H, W, 3) RGB images in 0..255; None = the model's own way."""
        return self._normalised(images, "" if task is None else self._suffix_of[task])

    def _normalised(self, images: paddle.Tensor, suffix: str) -> paddle.Tensor:
        x = images.astype("float32").transpose([0, 3, 1, 2])
        return x * getattr(self, f"scale{suffix}") + getattr(self, f"offset{suffix}")

    def pixels_for(self, task: str) -> tuple[Triple, Triple] | None:
        """(factor, shift) of red, green, blue: what pixels become so that the model's own normalisation gives the task's.

        None where the task is normalised as the model. For an exported backbone, which has one normalisation inside.
        """
        suffix = self._suffix_of[task]
        if not suffix:
            return None
        names = "scale", "offset", f"scale{suffix}", f"offset{suffix}"
        scale, offset, wanted, moved = (getattr(self, name).numpy().reshape(3).astype(np.float64) for name in names)
        (r, g, b), (x, y, z) = (wanted / scale).tolist(), ((moved - offset) / scale).tolist()
        return (r, g, b), (x, y, z)


def pixel_affine(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(scale, offset), (3,) float32 each, that normalise RGB in 0..255; ``mean`` and ``std`` are of RGB in 0..1."""
    shift = np.asarray(mean, np.float32)
    scale = 1 / (255 * np.asarray(std, np.float32))
    return scale, -shift * 255 * scale


def _checked(mean: Sequence[float], std: Sequence[float]) -> MeanStd:
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean and std must be three numbers each (R, G, B), std > 0; got {mean} and {std}")
    return tuple(mean), tuple(std)
