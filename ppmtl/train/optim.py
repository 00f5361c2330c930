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
from ppmtl.train.log import announce
from ppmtl.train.parameters import inside, under

_UNTOUCHED = (
    "untouched"  # a parameter that never got a gradient has no moments: the output norms of levels no head reads
)
_MASTER = "master_weight"
_BACKBONE = "backbone."

Named = Mapping[str, paddle.Tensor]


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
    """AdamW over the trainable parameters, grouped by learning rate multiplier and decay.

    A group's ``learning_rate`` is a multiplier in Paddle; ``lr_ratio`` would do the same but is missing on CPU.

    Args:
        model: whose frozen parameters (``stop_gradient``) are left out.
        settings: of the run.
        extra: {name: parameter} beside the model's, e.g. what a balance method learns: multiplier 1, never decayed.

    Raises:
        ConfigError: if an entry of ``no_decay`` or ``multipliers`` is no part of the model, or ``layer_decay`` meets a
            backbone without depths.
    """
    names = [name for name, _ in model.named_parameters()]
    spared = set(under(names, settings.no_decay, "optimizer.no_decay"))
    under(names, tuple(settings.multipliers), "optimizer.multipliers")
    groups: dict[tuple[float, bool], list[paddle.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:
            continue
        is_vector = sum(length > 1 for length in parameter.shape) <= 1  # (C,), and also (1, C, 1, 1)
        decayed = name not in spared and (settings.decay_1d or not is_vector)
        groups.setdefault((_multiplier(model, name, settings), decayed), []).append(parameter)
    if extra:
        groups.setdefault((1.0, False), []).extend(p for p in extra.values() if not p.stop_gradient)
    if not groups:
        raise ConfigError(["train.freeze: every parameter of the model is frozen; there is nothing to train"])
    return paddle.optimizer.AdamW(
        learning_rate=settings.learning_rate,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        epsilon=settings.epsilon,
        parameters=[
            {
                "params": parameters,
                "learning_rate": multiplier,
                "weight_decay": settings.weight_decay if decayed else 0.0,
            }
            for (multiplier, decayed), parameters in groups.items()
        ],
    )


def _multiplier(model: nn.Layer, name: str, settings: OptimizerSettings) -> float:
    """The factor on the learning rate: that of the longest part named, times layer_decay per block from the last down."""
    named = [part for part in settings.multipliers if inside(name, part)]
    factor = settings.multipliers[max(named, key=len)] if named else 1.0
    if settings.layer_decay == 1.0 or not name.startswith(_BACKBONE):
        return factor
    backbone = model.backbone
    if backbone.num_depths is None:
        raise ConfigError(
            [
                f"optimizer.layer_decay: {type(backbone).__name__} does not say how deep its parameters lie (num_depths, "
                "depth_of); set layer_decay: 1.0 and use optimizer.multipliers"
            ]
        )
    above = backbone.num_depths - backbone.depth_of(name.removeprefix(_BACKBONE))
    return float(factor * settings.layer_decay**above)


def clip_gradients(parameters: Iterable[paddle.Tensor], max_norm: float | None) -> float:
    """The global L2 norm of all gradients, after scaling them in place to at most ``max_norm``."""
    return clip_task([p.grad for p in parameters], max_norm)


@paddle.no_grad()
def clip_task(gradients: Iterable[paddle.Tensor | None], max_norm: float | None) -> float:
    """The L2 norm of these gradients together, after scaling them in place to at most ``max_norm``.

    Args:
        gradients: any shapes; None (a parameter that the task does not reach) is skipped.
        max_norm: in the unit of the gradients: where they are of a scaled loss, multiply it by the scale. None only
            measures.
    """
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

    Args:
        named: {structured name: parameter} of the model and of whatever else the optimizer trains; frozen ones are
            passed over.
        optimizer: as of :func:`build_optimizer`.

    Paddle keys them by generated names ("linear_2.w_0_moment1_0"), which change with the order of construction, in both
    numbers, and make resuming fail in a process that built anything else before (reference/peers.md, finding 2).
    """
    live = _live(named, optimizer)
    state = {f"{name}|{moment}": value.numpy() for name, moments in live.items() for moment, value in moments.items()}
    for name in _trained(named):
        if not live.get(name, {}).keys() - {_MASTER}:
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
        saved.setdefault(name, {})[_kind(moment)] = value
    missing, unknown = sorted(parameters.keys() - saved.keys()), sorted(saved.keys() - parameters.keys())
    if missing or unknown:
        raise ValueError(
            f"the optimizer state is of another model, or of a run with other parts frozen: {len(missing)} of its "
            f"parameters are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}; resume with the config "
            "saved beside the checkpoint, or start from its weights only with -o weights=..."
        )
    touched = {name: moments for name, moments in saved.items() if moments.pop(_UNTOUCHED, None) is None}
    # Paddle makes moments at the first step and only then knows their names; made here, they can be filled by role.
    optimizer._create_accumulators(default_main_program().global_block(), [parameters[name] for name in touched])
    live = _live(named, optimizer)
    for name, moments in saved.items():
        if moments.keys() != live.get(name, {}).keys():
            raise ValueError(
                f"the optimizer state of {name} holds {sorted(moments)}, this run needs {sorted(live.get(name, {}))}; "
                "resume with the same train.amp, or start from the weights only with -o weights=..."
            )
        for moment, value in moments.items():
            live[name][moment].set_value(value)


def _trained(named: Named) -> dict[str, paddle.Tensor]:
    """Returns those that the optimizer moves."""
    return {name: parameter for name, parameter in named.items() if not parameter.stop_gradient}


def _live(named: Named, optimizer: paddle.optimizer.Optimizer) -> dict[str, dict[str, paddle.Tensor]]:
    """Returns {structured name: {moment: the optimizer's own tensor}} of the parameters that have any."""
    structured = {parameter.name: name for name, parameter in _trained(named).items()}
    found: dict[str, dict[str, paddle.Tensor]] = {}
    state = optimizer.state_dict()
    for generated, value in state.pop("master_weights", {}).items():
        found.setdefault(structured[generated], {})[_MASTER] = value
    for key, value in state.items():  # no LR_Scheduler among them: the learning rate is a function of the step
        generated, moment = _split_key(key, structured)
        found.setdefault(structured[generated], {})[_kind(moment)] = value
    return found


def _kind(moment: str) -> str:
    """Returns "moment1" for "moment1_0", and for "fp32_master_0_moment1_0", which is the moment of a master weight.

    The numbers count how often Paddle made one of that name in this process: a second optimizer gets "moment1_1".
    """
    return re.sub(r"\Afp32_master_\d+_|_\d+\Z", "", moment)


def _split_key(key: str, structured: Mapping[str, str]) -> tuple[str, str]:
    """Returns (generated parameter name, moment); the longest name wins, because "w_1" is also a prefix of "w_10"."""
    position = len(key)
    while (position := key.rfind("_", 0, position)) > 0:
        if key[:position] in structured:
            return key[:position], key[position + 1 :]
    raise ValueError(f"optimizer state {key!r} belongs to no parameter of the model")
