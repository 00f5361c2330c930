"""Choosing parameters by the names of the parts that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ppmtl.config import ConfigError, nearest


def under(names: Iterable[str], prefixes: Sequence[str], where: str) -> list[str]:
    """Returns the names that are one of the parts or lie inside one, in their order.

    A part ends at a dot: "backbone.stages.1" does not reach "backbone.stages.10.weight".

    Args:
        names: of all parameters, e.g. "backbone.stages.0.1.gamma".
        prefixes: of parts, e.g. "backbone.stages.0".
        where: the config key that they come from, for the message.

    Raises:
        ConfigError: for every part that holds none of the names, with the nearest that does.
    """
    names = list(names)
    unknown = [prefix for prefix in prefixes if not any(inside(name, prefix) for name in names)]
    if unknown:
        parts = {".".join(pieces[:end]): None for n in names for pieces in [n.split(".")] for end in _ends(pieces)}
        raise ConfigError([f"{where}: {_unknown(prefix, list(parts))}" for prefix in unknown])
    return [name for name in names if any(inside(name, prefix) for prefix in prefixes)]


def inside(name: str, prefix: str) -> bool:
    """Returns whether a dotted name is the part ``prefix`` or lies inside it."""
    return f"{name}.".startswith(f"{prefix}.")


def _ends(pieces: list[str]) -> range:
    return range(1, len(pieces) + 1)


def _unknown(prefix: str, parts: list[str]) -> str:
    guess = nearest(prefix, parts)
    hint = f"did you mean '{guess}'? " if guess else ""
    known = ", ".join(part for part in parts if part.count(".") == 1)
    return f"'{prefix}' is no part of the model with parameters; {hint}Its parts are {known}, and what lies inside them"
