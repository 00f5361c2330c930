"""AdamW with warm-up and cosine decay: schedule, parameter groups, gradient clipping, and state under structured names."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import paddle
from paddle import nn

from ppmtl.run import OptimizerSettings

_UNTOUCHED = (
    "untouched"  # a parameter that never got a gradient has no moments: the output norms of levels no head reads
)


def learning_rate_at(step: int, settings: OptimizerSettings, total_steps: int) -> float:
    """Returns the learning rate of 0-based optimizer step ``step``: linear from 0, then cosine.

    A pure function of the step, so resuming needs no scheduler state. The cosine's period is the whole run, not the run
    less its warm-up, as in the challenge's baseline.

    Source: reference/model.md section 8; equal to golden lr_schedule.json (Paddle's LinearWarmup of a cosine).
    """
    peak, floor, warmup = settings.learning_rate, settings.min_learning_rate, settings.warmup_steps
    if step < warmup:
        return peak * step / warmup
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - warmup) / total_steps)) / 2


def build_optimizer(model: nn.Layer, settings: OptimizerSettings) -> paddle.optimizer.AdamW:
    """Returns AdamW over the trainable parameters in up to four groups: backbone or not, decayed or not.

    A group's ``learning_rate`` is a multiplier in Paddle; ``lr_ratio`` would do the same but is missing on CPU.
    """
    groups: dict[tuple[bool, bool], list[paddle.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.stop_gradient:
            continue
        in_backbone = name.split(".")[0] == "backbone"
        decayed = settings.decay_1d or parameter.ndim > 1
        groups.setdefault((in_backbone, decayed), []).append(parameter)
    return paddle.optimizer.AdamW(
        learning_rate=settings.learning_rate,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        epsilon=settings.epsilon,
        parameters=[
            {
                "params": parameters,
                "learning_rate": settings.backbone_lr_multiplier if in_backbone else 1.0,
                "weight_decay": settings.weight_decay if decayed else 0.0,
            }
            for (in_backbone, decayed), parameters in groups.items()
        ],
    )


@paddle.no_grad()
def clip_gradients(parameters: Iterable[paddle.Tensor], max_norm: float | None) -> float:
    """Returns the global L2 norm of all gradients, after scaling them in place to at most ``max_norm``."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = [g.flatten().astype("float32") for g in gradients]
    norm = math.sqrt(float(paddle.add_n([paddle.dot(g, g) for g in flat])))  # dot: no squared copy of every gradient
    if max_norm is not None and norm > max_norm:
        for gradient in gradients:
            gradient.scale_(max_norm / (norm + 1e-6))
    return norm


def optimizer_state(model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, np.ndarray]:
    """Returns AdamW's moments keyed "<structured parameter name>|<moment>".

    Paddle keys them by generated names ("linear_2.w_0_moment1_0"), which change with the order of construction and make
    resuming fail in a process that built anything else before (reference/peers.md, finding 2).
    """
    structured = {parameter.name: name for name, parameter in model.named_parameters()}
    state: dict[str, np.ndarray] = {}
    for key, value in optimizer.state_dict().items():
        if not isinstance(value, paddle.Tensor):
            continue  # "LR_Scheduler": the learning rate is a function of the step
        generated, moment = _split_key(key, structured)
        state[f"{structured[generated]}|{moment}"] = value.numpy()
    touched = {key.partition("|")[0] for key in state}
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient and name not in touched:
            state[f"{name}|{_UNTOUCHED}"] = np.zeros(0, np.float32)
    return state


def load_optimizer_state(model: nn.Layer, optimizer: paddle.optimizer.Optimizer, state: dict[str, np.ndarray]) -> None:
    """Puts moments saved by :func:`optimizer_state` back, whatever names Paddle generated in this process.

    Raises:
        ValueError: if the state names a parameter that this model does not have, or lacks one that it trains.
    """
    parameters = dict(model.named_parameters())
    saved = {key.partition("|")[0] for key in state}
    missing = sorted(name for name, p in parameters.items() if not p.stop_gradient and name not in saved)
    unknown = sorted(saved - parameters.keys())
    if missing or unknown:
        raise ValueError(
            f"the optimizer state is of another model: {len(missing)} of its parameters are missing {missing[:3]}, "
            f"{len(unknown)} are unknown {unknown[:3]}; resume with the config saved beside the checkpoint, or start "
            "from its weights only with -o weights=..."
        )
    named = {}
    for key, value in state.items():
        name, _, moment = key.partition("|")
        if moment == _UNTOUCHED:
            continue
        named[f"{parameters[name].name}_{moment}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(named)


def _split_key(key: str, structured: dict[str, str]) -> tuple[str, str]:
    """Returns (generated parameter name, moment); the longest name wins, because "w_1" is also a prefix of "w_10"."""
    position = len(key)
    while (position := key.rfind("_", 0, position)) > 0:
        if key[:position] in structured:
            return key[:position], key[position + 1 :]
    raise ValueError(f"optimizer state {key!r} belongs to no parameter of the model")
