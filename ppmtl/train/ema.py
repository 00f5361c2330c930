"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import paddle


class ExponentialMovingAverage:
    """Keeps ``average += (1 - decay) * (weights - average)``; buffers (BN statistics) are averaged as well.

    In this form a frozen part is its own average to the last bit, which decay * average + (1 - decay) * weights would round
    away. The decay starts at (1 + step) / (10 + step), so that the average of a short run does not hold its beginning. The
    average is what is evaluated and saved as the model's weights.

    Args:
        weights: returns {name: tensor} to follow, float32 even where the model computes in less: ``Precision.weights``.
        decay: in (0, 1); .9999 remembers about 10,000 steps.

    Attributes:
        average: {name: averaged tensor} with the model's names.
    """

    def __init__(self, weights: Callable[[], Mapping[str, paddle.Tensor]], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self.average = {name: value.clone().detach() for name, value in weights().items()}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Averages in the weights after 0-based optimizer step ``step``."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._weights().items():
            average = self.average[name]
            if "float" in str(average.dtype):
                average.set_value(average + (value - average) * (1 - decay))
            else:
                average.set_value(value)

    def state(self) -> dict[str, np.ndarray]:
        """The averaged weights as arrays, for a checkpoint."""
        return {name: value.numpy() for name, value in self.average.items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Continues from a saved average."""
        for name, value in state.items():
            self.average[name].set_value(value)
