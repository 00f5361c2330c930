"""What a backbone and a head are: the parts in ``backbones/`` and ``heads/`` subclass these."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import paddle
from paddle import nn

from ppmtl.config import ConfigError, suggestion
from ppmtl.structures import FeatureSpec
from ppmtl.weights.names import Naming, WeightNames

Side: TypeAlias = int | paddle.Tensor  # of the network input in pixels; a tensor while a graph is exported


class Backbone(nn.Layer):
    """Images -> named features."""

    out_specs: dict[str, FeatureSpec]  # of every feature that ``forward`` returns, finest first
    pretrained: str | None = None  # file or URL that training fills the backbone from on a fresh start
    weight_names: WeightNames | None = None  # how other projects name its weights; needed for ``pretrained``
    single_backward: bool = True  # the next training pass is gone back through once; the loop says so before every pass
    num_depths: int | None = None  # 1 + the number of blocks, for layer-wise decay of the learning rate

    @abstractmethod
    def forward(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """{name: feature} with the names of ``out_specs``; ``x`` is (B, 3, H, W) float32, normalised."""

    def depth_of(self, name: str) -> int:
        """How many blocks deep a parameter of this backbone lies, from 0 (stem) to ``num_depths`` - 1."""
        raise NotImplementedError(f"{type(self).__name__} has num_depths, so it needs depth_of")

    def use_pointwise_convolutions(self) -> None:
        """Turns pointwise linears into 1x1 convolutions in place, for bfloat16 on CPU; export only.

        Raises:
            ConfigError: if this backbone has none.
        """
        name = type(self).__name__
        raise ConfigError([f"--pointwise conv: {name} has no linears that can become 1x1 convolutions; use linear"])


class Head(nn.Layer):
    """Named features -> loss terms in training, raw arrays in evaluation. One head answers one task.

    A constructor takes ``in_specs`` and ``num_classes`` from the builder; its keyword-only arguments are its config keys.
    """

    task_type: ClassVar[str]  # of the tasks that it can answer; their class states the targets and raw arrays
    reads: tuple[str, ...]  # names of the features that ``forward`` looks at; a bundle computes no others
    weight_names: tuple[Naming, ...] = ()  # how other projects' checkpoints name its weights, if ``weights`` may be one

    @abstractmethod
    def forward(
        self,
        features: Mapping[str, paddle.Tensor],
        image_size: tuple[Side, Side],
        targets: Mapping[str, paddle.Tensor] | None = None,
    ) -> dict[str, paddle.Tensor]:
        """{"loss_<term>": 0-D float32} when there are targets, else {raw array: tensor}.

        Args:
            features: {name: feature}; at least those that it reads.
            image_size: (H, W) of the network input in pixels.
            targets: {name: tensor} as the task's ``collate`` makes them. Images that they mark as having no label take no
                part in the loss, which is that of a batch of the others; without any label the terms are 0, with
                gradients of 0.
        """

    def assigned(
        self,
        targets: Mapping[str, np.ndarray],  # noqa: ARG002
        image_size: tuple[int, int],  # noqa: ARG002
    ) -> dict[str, np.ndarray]:
        """Which anchors answer for the targets of a batch, for people to look at; {} for a head without anchors.

        Args:
            targets: as for ``forward``, as numpy arrays.
            image_size: (H, W) of the network input in pixels.

        Returns:
            {level: (n, 6) float32 rows [image, object, x1, y1, x2, y2]}: the anchor's box in input pixels, centred on its
            cell; an object's number is its place among the batch's objects.
        """
        return {}

    @staticmethod
    def answered(sides: np.ndarray, **settings: Any) -> np.ndarray | None:  # noqa: ARG004
        """How many anchors (or the like) would learn each object, or None for a head that has none.

        Args:
            sides: (N, 2) float32 width and height of objects in pixels of the network input.
            settings: the keyword arguments of the constructor.

        Returns:
            (N,) int64; 0 = the head cannot learn the object.
        """
        return None

    def choose(
        self, in_specs: Mapping[str, FeatureSpec], reads: tuple[str, ...] | None, *, default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """The features to read: those named by the config, else the default.

        Raises:
            ValueError: if the backbone has no feature of that name, or the default is one of several of its stride.
        """
        me = type(self).__name__
        for name in default if reads is None else ():
            stride = in_specs[name].stride
            alike = [other for other, spec in in_specs.items() if spec.stride == stride]
            if len(alike) > 1:
                raise ValueError(
                    f"{me}: the backbone has several features of stride {stride} ({', '.join(alike)}); say which to "
                    "read with reads"
                )
        for name in reads or ():
            if name not in in_specs:
                raise ValueError(f"{me}: reads {name!r}, the backbone has no such feature{suggestion(name, in_specs)}")
        return default if reads is None else reads


def of_strides(in_specs: Mapping[str, FeatureSpec], strides: Sequence[int]) -> tuple[str, ...]:
    """The names of the features that have one of these strides [px]: what most heads read by default."""
    return tuple(name for name, spec in in_specs.items() if spec.stride in strides)


class StepwiseHead(Head):
    """A head whose evaluation is a loop and therefore no one graph: it is exported as two, which the loop calls.

    ``state`` and ``memory`` are one tensor each, opaque to the caller: what is kept of the tokens so far, one row per
    sequence, and what is known about the images, one row per image.
    """

    search: dict[str, int]  # keywords of ``ops.beam_search.best_sequences``, which finds the arrays of ``forward``

    @abstractmethod
    def begin(self, features: Mapping[str, paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """(B, V) log probabilities of the first token, the state (B rows), the memory."""

    @abstractmethod
    def step(
        self, tokens: paddle.Tensor, rows: paddle.Tensor, state: paddle.Tensor, memory: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(R, V) log probabilities of the next token and the new state (R rows).

        Args:
            tokens: (R,) int64; R is a multiple of the number of images, and rows of one image follow each other.
            rows: (R,) int64, which row of the state each continues.
            state, memory: as returned before.
        """
