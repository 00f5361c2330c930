"""AdamW with warm-up and cosine decay: schedule, parameter groups, gradient clipping, and state under structured names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.base.framework import default_main_program

from ppmtl.config import ConfigError
from ppmtl.config.settings import OptimizerSettings
from ppmtl.models.layers import numba_computes
from ppmtl.train.freeze import inside, under
from ppmtl.train.log import announce

_UNTOUCHED = "untouched"  # a parameter that never got a gradient has no moments: a level's norm that no head reads
_MASTER = "master_weight"

Named = Mapping[str, paddle.Tensor]
"""{structured name: parameter} of the model and of whatever else the optimizer trains; frozen ones are passed over."""


def learning_rate_at(step: int, settings: OptimizerSettings, total_steps: int) -> float:
    """The learning rate of 0-based optimizer step ``step``: linear from 0, then cosine.

    A pure function of the step, so resuming needs no scheduler state. The cosine's period is the whole run, not the run
    less its warm-up, as in the challenge's baseline.

    Source: reference/model.md section 8; equal to golden lr_schedule.json (Paddle's LinearWarmup of a cosine).
    """
    peak, floor, warmup = settings.learning_rate, settings.min_learning_rate, settings.warmup_steps
    if step < warmup:
        return peak * step / warmup
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - warmup) / total_steps)) / 2


def scaled_learning_rate(settings: OptimizerSettings, world_size: int) -> dict[str, Any]:
    """The config values that ``scale_lr`` asks for with ``world_size`` processes, announced; {} for scale_lr: none.

    The peak changes, the floor stays, and ``scale_lr`` becomes "none", so that the saved config says what was used.
    """
    if settings.scale_lr == "none":
        return {}
    factor = float(world_size) if settings.scale_lr == "linear" else math.sqrt(world_size)
    peak = settings.learning_rate * factor
    announce(
        "optimizer.scale_lr %s: %d process(es), the learning rate is %g x %g = %g; the batch of a step is %d times a "
        "process's",
        settings.scale_lr, world_size, settings.learning_rate, factor, peak, world_size,
    )  # fmt: skip
    return {"optimizer.learning_rate": peak, "optimizer.scale_lr": "none"}


def build_optimizer(model: nn.Layer, settings: OptimizerSettings, extra: Named | None = None) -> paddle.optimizer.AdamW:
    """AdamW in parameter groups by learning rate and weight decay.

    Groups because Paddle's ``apply_decay_param_fun`` sees generated names only, and its ``lr_ratio`` does nothing on CPU.

    Frozen parameters (``stop_gradient``) are left out. ``extra`` is what a balance method learns: multiplier 1, no decay.

    Raises:
        ConfigError: if an entry of ``no_decay`` or ``multipliers`` is no part of the model, or ``layer_decay`` meets a
            backbone without depths.
    """
    names = [name for name, _ in model.named_parameters()]
    spared = set(under(names, settings.no_decay, "optimizer.no_decay"))
    under(names, tuple(settings.multipliers), "optimizer.multipliers")
    groups: dict[tuple[float, bool], list[paddle.Tensor]] = {}
    for name, parameter in _trained(dict(model.named_parameters())).items():
        is_vector = sum(length > 1 for length in parameter.shape) <= 1  # (C,), and also (1, C, 1, 1)
        decayed = name not in spared and (settings.decay_1d or not is_vector)
        groups.setdefault((_multiplier(model, name, settings), decayed), []).append(parameter)
    if extra:
        groups.setdefault((1.0, False), []).extend(_trained(extra).values())
    if not groups:
        raise ConfigError(["train.freeze: every parameter of the model is frozen; there is nothing to train"])
    return _AdamW(
        settings.learning_rate,
        *settings.betas,
        settings.epsilon,
        parameters=[
            {"params": parameters, "learning_rate": factor, "weight_decay": settings.weight_decay * decayed}
            for (factor, decayed), parameters in groups.items()
        ],
    )


class _AdamW(paddle.optimizer.AdamW):
    """Paddle's AdamW; on CPU its step is one call for all parameters, equal up to rounding."""

    @paddle.no_grad()
    def step(self) -> None:
        moving = [p for group in self._param_groups for p in group["params"] if p.grad is not None]
        ready = all(p.name in self._already_create_accumulator and numba_computes(p) for p in moving)
        if (
            not (moving and ready) or self._get_auxiliary_var("found_inf") is not None
        ):  # float16: Paddle's may skip a step
            super().step()
            return
        from ppmtl.train import _cpu_updates  # imports numba

        _cpu_updates.step(self, self._param_groups)


def _multiplier(model: nn.Layer, name: str, settings: OptimizerSettings) -> float:
    """The factor on the learning rate: that of the longest part named, times layer_decay per block from the last down."""
    named = [part for part in settings.multipliers if inside(name, part)]
    longest = max(named, key=lambda part: (part.count("."), "*" not in part), default=None)  # of two a part by name
    factor = 1.0 if longest is None else settings.multipliers[longest]
    if settings.layer_decay == 1.0 or not inside(name, "backbone"):
        return factor
    backbone = model.backbone
    if backbone.num_depths is None:
        kind = type(backbone).__name__
        problem = f"{kind} does not say how deep its parameters lie (num_depths, depth_of); set layer_decay: 1.0"
        raise ConfigError([f"optimizer.layer_decay: {problem} and use optimizer.multipliers"])
    above = backbone.num_depths - backbone.depth_of(name.removeprefix("backbone."))
    return float(factor * settings.layer_decay**above)


def clip_gradients(parameters: Iterable[paddle.Tensor], max_norm: float | None) -> float:
    """The global L2 norm of all gradients, after scaling them in place to at most ``max_norm``; None only measures."""
    return clip_task([p.grad for p in parameters], max_norm)


@paddle.no_grad()
def clip_task(gradients: Iterable[paddle.Tensor | None], max_norm: float | None) -> float:
    """:func:`clip_gradients` for gradients of any shapes; None is skipped, ``max_norm`` is in their (scaled) unit."""
    present = [g for g in gradients if g is not None]
    if not present:
        return 0.0
    flat = [g.flatten().astype("float32") for g in present]
    norm = math.sqrt(float(paddle.add_n([paddle.dot(g, g) for g in flat])))  # dot: no squared copy of every gradient
    if max_norm is not None and norm > max_norm:
        for gradient in present:
            gradient.scale_(max_norm / (norm + 1e-6))
    return norm


def optimizer_state(named: Named, optimizer: paddle.optimizer.Optimizer) -> dict[str, np.ndarray]:
    """AdamW's moments (and master weights, if any) keyed "<structured parameter name>|<moment>".

    Paddle keys them by generated names ("linear_2.w_0_moment1_0"), which change with the order of construction, in both
    numbers, and make resuming fail in a process that built anything else before (reference/peers.md, finding 2).
    """
    state: dict[str, np.ndarray] = {}
    for name, moments in _moments(named, optimizer).items():
        state |= {f"{name}|{moment}": value.numpy() for moment, value in moments.items()}
        if not moments.keys() - {_MASTER}:
            state[f"{name}|{_UNTOUCHED}"] = np.zeros(0, np.float32)
    return state


def load_optimizer_state(named: Named, optimizer: paddle.optimizer.Optimizer, state: Mapping[str, np.ndarray]) -> None:
    """Puts moments saved by :func:`optimizer_state` back, whatever names Paddle generated in this process.

    Raises:
        ValueError: if the state names a parameter that is not trained here, lacks one that is, or holds other moments.
    """
    parameters = _trained(named)
    saved: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state.items():
        name, _, moment = key.partition("|")
        # Older checkpoints have "moment1_0", or "fp32_master_0_moment1_0", with the numbers of Paddle's own names
        saved.setdefault(name, {})[re.sub(r"\Afp32_master_\d+_|_\d+\Z", "", moment)] = value
    missing, unknown = sorted(parameters.keys() - saved.keys()), sorted(saved.keys() - parameters.keys())
    if missing or unknown:
        raise ValueError(
            f"the optimizer state is of another model, or of a run with other parts frozen: {len(missing)} of its "
            f"parameters are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}; resume with the config "
            "saved beside the checkpoint, or start from its weights only with -o weights=..."
        )
    touched = [parameters[name] for name, moments in saved.items() if moments.pop(_UNTOUCHED, None) is None]
    optimizer._create_accumulators(default_main_program().global_block(), touched)  # Paddle would at the first step
    live = _moments(named, optimizer)
    for name, moments in saved.items():
        if moments.keys() != live[name].keys():
            raise ValueError(
                f"the optimizer state of {name} holds {sorted(moments)}, this run needs {sorted(live[name])}; "
                "resume with the same train.amp, or start from the weights only with -o weights=..."
            )
        for moment, value in moments.items():
            live[name][moment].set_value(value)


def _trained(named: Named) -> dict[str, paddle.Tensor]:
    return {name: parameter for name, parameter in named.items() if not parameter.stop_gradient}


def _moments(named: Named, optimizer: paddle.optimizer.Optimizer) -> dict[str, dict[str, paddle.Tensor]]:
    """{structured name: {moment: the optimizer's own tensor}}; those of a master weight stand under its name in Paddle."""
    found: dict[str, dict[str, paddle.Tensor]] = {}
    for name, parameter in _trained(named).items():
        master = optimizer._master_weights.get(parameter.name)
        key = parameter.name if master is None else master.name
        found[name] = {moment: of[key] for moment, of in optimizer._accumulators.items() if key in of}
        if master is not None:
            found[name][_MASTER] = master
    return found
