"""Mixed precision and the moving average: the weights beside those that the model computes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import paddle
from paddle import nn

from ppmtl.config import ConfigError
from ppmtl.config.settings import AmpSettings
from ppmtl.models.layers import numba_computes
from ppmtl.train.log import announce


class Precision:
    """Casts forward passes, scales losses, keeps float32 weights behind low-precision ones. Without settings: nothing.

    A step is: ``autocast`` around every forward pass, ``backward`` for every loss (one scale for all tasks, so that their
    gradients add up), the all-reduce, ``unscale``, the clip, ``step``. The all-reduce comes before ``unscale`` because an
    overflow on one process must make all of them skip the step. Losses are always float32: the heads cast their outputs.

    Mixed precision takes effect on GPUs only, and there it has not been run yet: this was written from Paddle's
    documentation and source, and tested with its own scaler on CPU.

    Args:
        settings: ``train.amp``; None = float32.
        model: not wrapped yet, its initial weights loaded and its frozen parts frozen. O2 casts it in place.
        optimizer: over its parameters, before its first step.

    Raises:
        ConfigError: if the device would ignore the settings.
    """

    def __init__(self, settings: AmpSettings | None, model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> None:
        self._settings, self._model, self._optimizer = settings, model, optimizer
        self._scaler: paddle.amp.GradScaler | None = None
        self._full: dict[str, paddle.Tensor] = {}
        self.found_nonfinite = False  # in the last ``unscale``; ``step`` then leaves all weights as they are
        if settings is None:
            return
        _require_support(settings.dtype)
        if settings.level == "O2":
            self._full = _lower(model, optimizer, settings.dtype)
        if settings.dtype == "float16":
            self._scaler = paddle.amp.GradScaler(init_loss_scaling=settings.initial_scale)

    @property
    def scale(self) -> float:
        """The factor that the gradients carry between ``backward`` and ``unscale``; 1 = none."""
        return 1.0 if self._scaler is None else float(self._scaler.state_dict()["scale"][0])

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a training forward pass, losses included."""
        if self._settings is None:
            return nullcontext()
        context: AbstractContextManager[None] = paddle.amp.auto_cast(
            level=self._settings.level, dtype=self._settings.dtype
        )
        return context

    def evaluation(self) -> AbstractContextManager[None]:
        """The context of an evaluation: that of training with O2, whose weights fit no float32 input."""
        return self.autocast() if self._full else nullcontext()

    def backward(self, loss: paddle.Tensor, *, retain_graph: bool = False) -> None:
        """Adds the gradients of the (scaled) loss to ``.grad``."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward(retain_graph=retain_graph)

    def unscale(self) -> None:
        """Divides all gradients by the scale and notes whether one of them is not finite."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
            self.found_nonfinite = bool(self._scaler._found_inf)

    def step(self) -> None:
        """Moves the weights, unless a gradient was not finite, and adapts the scale."""
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def weights(self) -> dict[str, paddle.Tensor]:
        """{name: tensor} of the model's state in float32: what is averaged and saved."""
        return {name: self._full.get(name, value) for name, value in self._model.state_dict().items()}

    @paddle.no_grad()
    def set_weights(self, arrays: Mapping[str, np.ndarray | paddle.Tensor]) -> None:
        """Sets the float32 weights, and rounds them into the model's parameters where those are low-precision."""
        state = self._model.state_dict()
        for name in state.keys() & arrays.keys():
            array = arrays[name]
            if name in self._full:
                self._full[name].set_value(array)
                array = self._full[name].astype(state[name].dtype)
            state[name].set_value(array)

    def state(self) -> dict[str, float]:
        """The scaler's state in numbers; empty without one."""
        if self._scaler is None:
            return {}
        state = self._scaler.state_dict()
        return {"scale": self.scale, "good_steps": state["incr_count"], "bad_steps": state["decr_count"]}

    def load(self, state: Mapping[str, float]) -> None:
        """Continues from a saved :meth:`state`; an empty one leaves the scaler at its start."""
        if self._scaler is not None and state:
            saved = {"incr_count": int(state["good_steps"]), "decr_count": int(state["bad_steps"])}
            scale = np.array([state["scale"]], np.float32)
            self._scaler.load_state_dict({**self._scaler.state_dict(), **saved, "scale": scale})
        elif self._scaler is not None or state:
            announce("train.amp: only one of the checkpoint and this run scales losses; it starts afresh")


def _require_support(dtype: str) -> None:
    supported = {"float16": paddle.amp.is_float16_supported, "bfloat16": paddle.amp.is_bfloat16_supported}
    if not paddle.get_device().startswith("gpu"):
        problem = (
            f"train.amp: mixed precision needs a GPU and this run is on {paddle.get_device()}, where Paddle accepts the "
            "switches and computes in float32 all the same; use train.amp=null, or --device gpu on a machine that has one"
        )
    elif not supported[dtype]():
        other = "train.amp=null" if dtype == "float16" else "train.amp.dtype=float16 or train.amp=null"
        problem = (
            f"train.amp.dtype: {dtype} is not supported by {paddle.device.cuda.get_device_name()} (float16 needs "
            f"compute capability 7.0, bfloat16 8.0), and Paddle would compute in float32 all the same; use {other}"
        )
    else:
        return
    raise ConfigError([problem])


def _lower(model: nn.Layer, optimizer: paddle.optimizer.Optimizer, dtype: str) -> dict[str, paddle.Tensor]:
    """Casts the parameters in place; returns {name: float32 tensor} of those cast, which the optimizer then updates.

    Paddle would make the master weights from the already rounded parameters at the first step, and none of frozen ones:
    a fine-tuned checkpoint would lose its low digits before the first step.
    """
    before = {name: parameter.clone().detach() for name, parameter in model.named_parameters()}
    # The model itself is left out, not the layers in it: its own buffers are the input's mean and scale.
    paddle.amp.decorate(model, optimizer, level="O2", dtype=dtype, excluded_layers=[type(model)])
    cast = {name: p for name, p in model.named_parameters() if p.dtype != before[name].dtype}
    trained = {name: parameter for name, parameter in cast.items() if not parameter.stop_gradient}
    for name, parameter in trained.items():
        before[name].name = f"{parameter.name}_fp32_master_0"  # Paddle's name for it, after which it names the moments
    optimizer.set_state_dict({"master_weights": {p.name: before[name] for name, p in trained.items()}})
    return {name: before[name] for name in cast}


class ExponentialMovingAverage:
    """Keeps ``average += (1 - decay) * (weights - average)``; buffers (BN statistics) are averaged as well.

    In this form a frozen part is its own average to the last bit, which decay * average + (1 - decay) * weights would round
    away. The decay starts at (1 + step) / (10 + step), so that the average of a short run does not hold its beginning. The
    average is what is evaluated and saved as the model's weights.

    Args:
        weights: gives {name: float32 tensor} to follow: ``Precision.weights``.
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
        fused = []
        for name, value in self._weights().items():
            average = self.average[name]
            if value.dtype == average.dtype and numba_computes(average):
                fused.append((average, value))
            else:
                is_float = "float" in str(average.dtype)
                average.set_value(average + (value - average) * (1 - decay) if is_float else value)
        if fused:
            from ppmtl.train import _cpu_updates  # imports numba

            _cpu_updates.move_averages(fused, 1 - decay)

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continues from a saved average."""
        for name, value in arrays.items():
            self.average[name].set_value(value)
