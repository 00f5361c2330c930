"""Freezing parts of a model: no gradient, no weight decay, no batch statistics, no dropout."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import nn

from ppmtl.config import ConfigError
from ppmtl.train.log import announce
from ppmtl.train.parameters import inside, under


def freeze(model: nn.Layer, prefixes: Sequence[str]) -> int:
    """Stops the training of parts of a model and returns of how many parameters; call it before the optimizer is built.

    The parts' parameters get no gradient and the parts stay in evaluation mode however often ``model.train()`` is called.
    Nothing below the first trained parameter is differentiated, so frozen leading stages cost their forward pass only; a
    frozen part above a trained one still passes the gradient on.

    A frozen head is still evaluated, and its loss still trains a backbone that is not frozen: freezing is about
    parameters, leaving a task out (``--tasks``) is about losses. A warning says so.

    Args:
        model: a MultiTaskModel.
        prefixes: names of parts or parameters, e.g. "backbone.stages.0" or "heads.det.neck".

    Raises:
        ConfigError: if a name is no part of the model, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    chosen = [name for name in under(parameters, prefixes, "train.freeze") if not parameters[name].stop_gradient]
    left = {name for name, p in parameters.items() if not p.stop_gradient} - set(chosen)
    if not left:
        raise ConfigError(["train.freeze: every parameter of the model would be frozen; leave a part to train"])
    for name in chosen:
        parameters[name].stop_gradient = True
    model.frozen = frozenset(
        name for name, _ in model.named_sublayers() if any(inside(name, prefix) for prefix in prefixes)
    )
    if model.training:
        model.train()
    _warn_of_idle_heads(model, left)
    return len(chosen)


def _warn_of_idle_heads(model: nn.Layer, trained: set[str]) -> None:
    """Warns about what a frozen head's loss still does, because either answer surprises somebody."""
    for task, head in model.head_of.items():
        if any(inside(name, f"heads.{head}") for name in trained):
            continue
        if any(inside(name, "backbone") for name in trained):
            others = ",".join(name for name in model.head_of if name != task)
            effect = f"its loss still trains the backbone; leave the task out with --tasks {others} if it must not"
        else:
            effect = (
                "the backbone is frozen too, so its batches train nothing and only cost time: take its source out of "
                "the config"
            )
        announce("train.freeze: the head of task '%s' is frozen; %s", task, effect)
