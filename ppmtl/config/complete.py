"""A config with every key in it: what was left out is filled in with its default, and says so."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppmtl.config import hints as h
from ppmtl.config.errors import ConfigError, join
from ppmtl.config.parameters import REQUIRED, parameters_of
from ppmtl.config.parts import name_of, resolve_part
from ppmtl.config.tree import ConfigTree, nodes

DEFAULT = "default"


def complete(settings: type, tree: ConfigTree) -> ConfigTree:
    """The tree with all defaults; their origin is "default". Unknown keys are left out, unknown parts stay as they are."""
    data = _filled(settings, tree.data)
    return ConfigTree(data, {path: tree.origins.get(path, DEFAULT) for path, _ in nodes(data)}, tree.file)


def leaves(tree: ConfigTree) -> dict[str, Any]:
    """{dotted path: value} of everything that is not made of other values; a list of plain values is one value."""
    found: dict[str, Any] = {}

    def visit(path: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                visit(join(path, key), item)
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                visit(join(path, index), item)
        else:
            found[path] = value

    visit("", tree.data)
    return found


def _filled(hint: Any, value: Any) -> Any:
    """``value`` with the defaults of what ``hint`` allows below it; objects that stand for defaults become plain data."""
    if isinstance(value, Path):
        return str(value)
    for member in h.choices(hint):
        bare = h.bare(member)
        origin, args = typing.get_origin(bare) or bare, typing.get_args(bare)
        if part := h.part_of(member):
            if isinstance(value, functools.partial):
                value = {"type": name_of(part.package, value.func), **value.keywords}
            if isinstance(value, Mapping):
                return _filled_part(part.package, bare, value)
        elif h.is_settings(bare) and (isinstance(value, Mapping) or dataclasses.is_dataclass(value)):
            given = (
                value
                if isinstance(value, Mapping)
                else {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            )
            return _with_defaults(bare, given)
        elif origin in h.MAPPINGS and isinstance(value, Mapping):
            return {key: _filled(args[1] if args else Any, item) for key, item in value.items()}
        elif origin in h.LISTS and isinstance(value, (list, tuple)):
            is_fixed = len(args) == len(value) and args[-1:] != (Ellipsis,)
            return [_filled(args[i if is_fixed else 0] if args else Any, item) for i, item in enumerate(value)]
    return value


def _filled_part(package: str, place: Any, value: Mapping[str, Any]) -> Any:
    try:
        target = resolve_part(package, value.get("type", ""))
    except ConfigError:
        return value
    own = [name for name in parameters_of(place) if name != "part"] if h.is_settings(place) else []
    of_part = _with_defaults(target, {key: item for key, item in value.items() if key not in own})
    of_place = _with_defaults(place, {key: value[key] for key in own if key in value}) if own else {}
    of_place.pop("part", None)
    merged = {**of_part, **of_place}
    merged["type"] = value["type"]
    return {key: merged[key] for key in dict.fromkeys([*value, *merged]) if key in merged}  # what was given first


def _with_defaults(target: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        parameters = parameters_of(target)
    except (NameError, ValueError):  # hints of a class from elsewhere that cannot be read; checking says so
        return dict(given)
    filled = {key: _filled(parameters[key].hint, item) for key, item in given.items() if key in parameters}
    for key, parameter in parameters.items():
        if key not in filled and parameter.default is not REQUIRED:
            filled[key] = _filled(parameter.hint, parameter.default)
    return filled
