"""The features of a made-up backbone: "c2" to "c5", or the coarsest few of them."""

from __future__ import annotations

import numpy as np
import paddle

from ppmtl.structures import FeatureSpec

NAMES, STRIDES = ("c2", "c3", "c4", "c5"), (4, 8, 16, 32)


def specs(*channels: int) -> dict[str, FeatureSpec]:
    """{name: spec} for these widths; the last one is c5."""
    places = zip(NAMES[-len(channels) :], channels, STRIDES[-len(channels) :], strict=True)
    return {name: FeatureSpec(width, stride) for name, width, stride in places}


def random_features(
    channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], batch: int = 1, seed: int = 0
) -> dict[str, paddle.Tensor]:
    """{name: standard normal (batch, width, h, w) float32}, drawn finest first; the last one is c5."""
    random = np.random.RandomState(seed)
    return {
        name: paddle.to_tensor(random.randn(batch, width, *size).astype(np.float32))
        for name, width, size in zip(NAMES[-len(channels) :], channels, sizes, strict=True)
    }
