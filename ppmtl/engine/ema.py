"""Exponential moving average of a model's weights."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn


class ExponentialMovingAverage:
    """Keeps ``average = decay * average + (1 - decay) * weights``; buffers (BN statistics) are averaged as well.

    The decay starts at (1 + step) / (10 + step), so that a short run is not an average with its own beginning.

    Args:
        model: whose state is followed.
        decay: in (0, 1); .9999 remembers about 10,000 steps.

    Attributes:
        average: {name: averaged tensor} under the model's own names.
    """

    def __init__(self, model: nn.Layer, decay: float) -> None:
        self._model, self._decay = model, decay
        self.average = {name: value.clone().detach() for name, value in model.state_dict().items()}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after 0-based optimizer step ``step``."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._model.state_dict().items():
            average = self.average[name]
            if "float" in str(average.dtype):
                average.set_value(average * decay + value * (1 - decay))
            else:
                average.set_value(value)

    def state(self) -> dict[str, np.ndarray]:
        """Returns the averaged weights under the model's own names."""
        return {name: value.numpy() for name, value in self.average.items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Continues from a saved average."""
        for name, value in state.items():
            self.average[name].set_value(value)
