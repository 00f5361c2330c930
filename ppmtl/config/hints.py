"""Type hints as a config reader sees them: taken apart and put into words."""

from __future__ import annotations

import collections.abc
import dataclasses
import operator
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ppmtl.config.parts import Part

MAPPINGS = (dict, collections.abc.Mapping)
LISTS = (list, tuple, collections.abc.Sequence)
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path",
          type(None): "null"}  # fmt: skip
# Attributes of annotated_types.Ge, Interval, ...: in words, and whether a value keeps the limit
_LIMITS = {"gt": (">", operator.gt), "ge": (">=", operator.ge), "lt": ("<", operator.lt), "le": ("<=", operator.le)}


def bare(hint: Any) -> Any:
    """The hint without the metadata of ``Annotated``."""
    return hint.__origin__ if typing.get_origin(hint) is typing.Annotated else hint


def part_of(hint: Any) -> Part | None:
    """The ``Part`` that a hint is annotated with, or None."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Part)), None)


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; the bare hint itself if it is none."""
    return choices(bare(hint))


def choices(hint: Any) -> tuple[Any, ...]:
    """The members of a union with their metadata; the hint itself if it is none."""
    inner = bare(hint)
    return typing.get_args(inner) if typing.get_origin(inner) in (typing.Union, types.UnionType) else (hint,)


def is_settings(hint: Any) -> bool:
    """Whether the hint is a dataclass, whose fields are keys."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def accepts_none(hint: Any) -> bool:
    """Whether null is a value of this hint."""
    return bare(hint) in (Any, object) or type(None) in members(hint)


def keeps_limits(value: Any, hint: Any) -> bool:
    """Whether a value of the right type keeps the limits of ``hint``, such as its range."""
    return all(_LIMITS[name][1](value, limit) for name, limit in limits(hint))


def describe(hint: Any) -> str:
    """What a hint allows, in words: "a whole number >= 1, or null"."""
    within = [f"{_LIMITS[name][0]} {limit}" for name, limit in limits(hint)]
    words = "a mapping with 'type'" if part_of(hint) else _describe_bare(bare(hint))
    return f"{words} {' and '.join(within)}" if within else words


def _describe_bare(hint: Any) -> str:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if len(members(hint)) > 1:
        return ", or ".join(map(describe, args))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if is_settings(hint):
        return f"a mapping with {', '.join(field.name for field in dataclasses.fields(hint) if field.init)}"
    if origin in MAPPINGS:
        return f"a mapping, each value {describe(args[1])}" if args else "a mapping"
    if origin is tuple and args and args[-1] is not Ellipsis:
        words = list(map(describe, args))
        return f"a list of {len(args)}, {f'each {words[0]}' if len(set(words)) == 1 else ', '.join(words)}"
    if origin in LISTS:
        return f"a list, each {describe(args[0])}" if args else "a list"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def limits(hint: Any) -> Iterator[tuple[str, Any]]:
    """(name, limit) of everything in ``_LIMITS`` that a hint is annotated with.

    Whole numbers come as int: typing caches Annotated[float, Gt(0)] and Gt(0.0) as one, so either may be there.
    """
    for item in getattr(hint, "__metadata__", ()):
        for name in _LIMITS:
            if (limit := getattr(item, name, None)) is not None:
                yield name, int(limit) if isinstance(limit, float) and limit.is_integer() else limit
