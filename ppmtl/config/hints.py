"""Type hints as a config reader sees them: taken apart, sorted into kinds, and put into words."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic.fields import FieldInfo

from ppmtl.config.parts import Part

Kind = Literal["mapping", "list", "scalar", "any"]
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
}


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Returns the bare hint and the metadata of ``Annotated``; () for a hint that is not annotated."""
    if typing.get_origin(hint) is typing.Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def part_of(hint: Any) -> Part | None:
    """Returns the ``Part`` that a hint is annotated with, or None."""
    return next((item for item in split(hint)[1] if isinstance(item, Part)), None)


def members(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union; the hint itself if it is none."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def accepts_none(hint: Any) -> bool:
    """Returns whether null is a value of this hint."""
    bare = split(hint)[0]
    return bare is Any or bare is object or any(member in (None, type(None)) for member in members(bare))


def is_dataclass(hint: Any) -> bool:
    """Returns whether the hint is a plain dataclass, whose fields are keys."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def kinds_of_hint(hint: Any) -> set[Kind]:
    """Returns which kinds of YAML value could fit a hint."""
    bare = split(hint)[0]
    if part_of(hint) or is_dataclass(bare):
        return {"mapping"}
    if len(members(bare)) > 1:
        return {kind for member in members(bare) for kind in kinds_of_hint(member)}
    origin = typing.get_origin(bare) or bare
    if origin in (Any, object):
        return {"mapping", "list", "scalar", "any"}
    return {"mapping"} if origin in _MAPPINGS else {"list"} if origin in _LISTS else {"scalar"}


def kind_of_value(value: Any) -> Kind:
    """Returns the kind of a YAML value."""
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, (list, tuple)) else "scalar"


def item_hints(hint: Any, count: int) -> list[Any] | None:
    """Returns the hint of each of ``count`` items of a list or tuple hint; None if the hint has another length."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return list(args) if len(args) == count else None
    return [args[0] if args else Any] * count


def literals(hint: Any) -> list[Any]:
    """Returns all ``Literal`` values a hint allows."""
    bare = split(hint)[0]
    if typing.get_origin(bare) is Literal:
        return list(typing.get_args(bare))
    return [value for member in members(bare) if member is not bare for value in literals(member)]


def describe(hint: Any) -> str:
    """Returns what a hint allows, in words: "a whole number >= 1, or null"."""
    bare, metadata = split(hint)
    if part_of(hint):
        return "a mapping with 'type'"
    limits = " and ".join(_limits(metadata))
    return f"{_describe_bare(bare)} {limits}" if limits else _describe_bare(bare)


def _describe_bare(bare: Any) -> str:
    origin, args = typing.get_origin(bare) or bare, typing.get_args(bare)
    if len(members(bare)) > 1:
        return ", or ".join(describe(member) for member in members(bare))
    if origin is Literal:
        return " or ".join(repr(value) for value in args)
    if is_dataclass(bare):
        return f"a mapping with {', '.join(field.name for field in dataclasses.fields(bare) if field.init)}"
    if origin in _MAPPINGS:
        return f"a mapping, each value {describe(args[1])}" if args else "a mapping"
    if origin is tuple and args and args[-1] is not Ellipsis:
        same = len(set(map(describe, args))) == 1
        items = f"each {describe(args[0])}" if same else ", ".join(describe(arg) for arg in args)
        return f"a list of {len(args)}, {items}"
    if origin in _LISTS:
        return f"a list, each {describe(args[0])}" if args else "a list"
    return _WORDS.get(bare, getattr(bare, "__name__", str(bare)))


def _limits(metadata: tuple[Any, ...]) -> Iterator[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    counts = {
        "min_length": "of at least {} items",
        "max_length": "of at most {} items",
        "multiple_of": "divisible by {}",
    }
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _limits(tuple(item.metadata))
        elif isinstance(item, annotated_types.GroupedMetadata):
            yield from _limits(tuple(item))
        else:
            yield from (f"{sign} {getattr(item, name)}" for name, sign in signs.items() if hasattr(item, name))
            yield from (text.format(getattr(item, name)) for name, text in counts.items() if hasattr(item, name))
