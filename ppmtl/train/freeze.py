"""Choosing parameters by the names of the parts that they belong to, and freezing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from paddle import nn

from ppmtl.config import ConfigError, nearest
from ppmtl.train.log import announce


def inside(name: str, part: str) -> bool:
    """Whether a dotted name is ``part`` or lies inside it; "backbone.stages.1" does not hold "backbone.stages.10.gamma".

    A "*" in a part stands for one word of a name: "backbone.blocks.*.norm1".
    """
    words, wanted = name.split("."), part.split(".")
    return len(words) >= len(wanted) and all(w in ("*", word) for word, w in zip(words, wanted, strict=False))


def under(names: Iterable[str], parts: Sequence[str], where: str) -> list[str]:
    """The names that are one of the parts, e.g. "backbone.stages.0", or lie inside one, in their order.

    Raises:
        ConfigError: naming the config key ``where``, for every part that holds none of the names.
    """
    names, problems = list(names), []
    known = dict.fromkeys(part for name in names for part in accumulate(name.split("."), "{}.{}".format))
    for part in parts:
        if not any(inside(name, part) for name in known):
            guess = nearest(part, list(known))
            problems.append(
                f"{where}: '{part}' is no part of the model with parameters; {f'did you mean {guess!r}? ' if guess else ''}"
                f"Its parts are {', '.join(p for p in known if p.count('.') == 1)}, and what lies inside them"
            )
    if problems:
        raise ConfigError(problems)
    return [name for name in names if any(inside(name, part) for part in parts)]


def freeze(model: nn.Layer, parts: Sequence[str]) -> int:
    """Stops the training of parts of a MultiTaskModel and returns of how many parameters; before the optimizer is built.

    The parts' parameters get no gradient and the parts stay in evaluation mode however often ``model.train()`` is called.
    Nothing below the first trained parameter is differentiated, so frozen leading stages cost their forward pass only.

    A frozen head is still evaluated, and its loss still trains a backbone that is not frozen: freezing is about
    parameters, leaving a task out (``--tasks``) is about losses. A warning says so.

    Raises:
        ConfigError: if a name is no part of the model, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    chosen = [name for name in under(parameters, parts, "train.freeze") if not parameters[name].stop_gradient]
    left = {name for name, p in parameters.items() if not p.stop_gradient} - set(chosen)
    if not left:
        raise ConfigError(["train.freeze: every parameter of the model would be frozen; leave a part to train"])
    for name in chosen:
        parameters[name].stop_gradient = True
    model.frozen = frozenset(name for name, _ in model.named_sublayers() if any(inside(name, part) for part in parts))
    if model.training:
        model.train()
    for task, head in model.head_of.items():
        if any(inside(name, f"heads.{head}") for name in left):
            continue
        effect = "the backbone is frozen too, so its batches train nothing: take its source out of the config"
        if any(inside(name, "backbone") for name in left):
            others = ",".join(name for name in model.head_of if name != task)
            effect = f"its loss still trains the backbone; leave the task out with --tasks {others} if it must not"
        announce("train.freeze: the head of task '%s' is frozen; %s", task, effect)
    return len(chosen)
