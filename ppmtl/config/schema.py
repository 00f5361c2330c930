"""JSON Schema of configs, for the completion and the checks of an editor.

It says what may stand where. A config may leave out what its ``_base_`` has, so nothing is required; missing keys, and rules
between several keys, are what loading the config checks. Draft 7, which the YAML plug-ins of editors know.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ppmtl.config import hints as h
from ppmtl.config.keys import Key, keys_of
from ppmtl.config.meanings import first_line
from ppmtl.config.parts import part_names, resolve_part, spelling
from ppmtl.config.tree import BASE

Schema = dict[str, Any]
_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", Path: "string", type(None): "null"}
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def json_schema(settings: type) -> Schema:
    """The schema of a config that fills ``settings``, every part of the project in it."""
    definitions: dict[str, Schema] = {}
    result = _mapping(settings, definitions)
    texts = {"type": "string"}
    base = {"anyOf": [texts, {"type": "array", "items": texts}], "description": "parent config, or a list of them"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ppmtl config",
        **result,
        "properties": {BASE: base, **result["properties"]},
        "definitions": definitions,
    }


def _mapping(target: Callable[..., Any], definitions: dict[str, Schema], extra: Schema | None = None) -> Schema:
    """A mapping with the keys of a settings class or part, and ``extra`` ones."""
    own = [key for key in keys_of(target, into_parts=False) if "." not in key.path]
    properties = {key.path: _described(key, definitions) for key in own} | (extra or {})
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(key: Key, definitions: dict[str, Schema]) -> Schema:
    about = f"{key.meaning}\ndefault: {key.default_text()}"
    return {**_schema(key.hint, definitions), "description": about}


def _schema(hint: Any, definitions: dict[str, Schema]) -> Schema:
    bare = h.bare(hint)
    if bare in (Any, object):
        return {}
    if part := h.part_of(hint):
        return _part(part.package, bare, definitions)
    if len(members := h.choices(hint)) > 1:
        return {"anyOf": [_schema(member, definitions) for member in members]}
    origin, args = typing.get_origin(bare) or bare, typing.get_args(bare)
    if origin is Literal:
        return {"enum": list(args)}
    if h.is_settings(bare):
        return _mapping(bare, definitions)
    if origin in h.MAPPINGS:  # null removes an entry that a parent file defined
        item = {"anyOf": [_schema(args[1], definitions), {"type": "null"}]} if args else {}
        return {"type": "object", "additionalProperties": item}
    if origin is tuple and args and args[-1] is not Ellipsis:
        return {"type": "array", "items": [_schema(arg, definitions) for arg in args], "minItems": len(args),
                "maxItems": len(args)}  # fmt: skip
    if origin in h.LISTS:
        return {"type": "array", "items": _schema(args[0], definitions) if args else {}}
    return {"type": _PLAIN[bare], **{_LIMITS[name]: limit for name, limit in h.limits(hint)}} if bare in _PLAIN else {}


def _part(package: str, place: Any, definitions: dict[str, Schema]) -> Schema:
    """A reference to "a part of the package"; with the keys of ``place``, if that is the settings class around it."""
    at_place = h.is_settings(place)
    name = f"{package}:{place.__name__}" if at_place else package
    if name not in definitions:
        definitions[name] = {}  # first, since a part may hold parts of its own kind
        extra = _mapping(place, definitions)["properties"] if at_place else {}
        extra.pop("part", None)
        definitions[name] = _choice(package, extra, definitions)
    return {"$ref": f"#/definitions/{name}"}


def _choice(package: str, extra: Schema, definitions: dict[str, Schema]) -> Schema:
    """The keys of the part that ``type`` names; without ``type``, which the parent file then has, those of any one part."""
    targets = {name: resolve_part(package, name) for name in part_names(package)}
    about = {spelling(name): first_line(target) for name, target in targets.items()}
    kind = {"type": "string", "description": "\n".join(f"{name}: {text}" for name, text in about.items())}
    known: list[Schema] = []
    for name, target in targets.items():
        spelt = list(dict.fromkeys([spelling(name), name, target.__name__]))
        mapping = _mapping(target, definitions, {"type": {"enum": spelt}, **extra})
        known.append({"if": {"properties": {"type": {"enum": spelt}}, "required": ["type"]}, "then": mapping})
    names = [{"enum": list(about)}, {"pattern": r"\.|[A-Z]"}]  # a dotted path, or a class name
    return {
        "type": "object",
        "properties": {"type": {**kind, "anyOf": names}},
        "if": {"required": ["type"]},
        "then": {"allOf": known},
        "else": {"anyOf": [entry["then"] for entry in known]},
    }
