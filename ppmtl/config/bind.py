"""Config trees to checked objects: the keys of a mapping are the keyword arguments of one callable.

The type hints of that callable are the schema. Containers, open parts and dataclasses are walked here, so that every
problem has an exact path; single values go through pydantic in strict JSON mode ("1" is no number, true is no 1, a
whole number is a float, a text is a Path).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar, Union

from pydantic import TypeAdapter, ValidationError

from ppmtl.config import hints as h
from ppmtl.config.errors import ConfigError, nearest, show, suggestion
from ppmtl.config.parts import Part, part_names, resolve_part
from ppmtl.config.tree import ConfigTree, join

T = TypeVar("T")
_INVALID: Any = object()  # a value that was reported; None is a value
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check(settings: type[T], tree: ConfigTree) -> T:
    """Returns an instance of the dataclass ``settings``, filled from the tree.

    Open parts inside become functools.partial objects of the chosen classes; nothing is constructed but dataclasses.

    Raises:
        ConfigError: with all problems of the tree.
    """
    problems: list[str] = []
    result = _Checker(tree.origins, problems).convert(settings, tree.data, "")
    if problems:
        raise ConfigError(problems, tree.file)
    return result  # type: ignore[no-any-return]


def bind(
    target: Callable[..., Any],
    node: Mapping[str, Any],
    *,
    path: str,
    problems: list[str],
    origins: Mapping[str, str] | None = None,
    supplied: Collection[str] = (),
) -> functools.partial[Any] | None:
    """Returns ``target`` with the checked keys of ``node`` as keyword arguments, or None if something was wrong.

    Args:
        target: a class or function. Its keyword-only parameters may be set; of a dataclass, all its fields.
        node: {key: value}, without ``type``.
        path: dotted path of ``node``, for messages.
        problems: gets one line per problem.
        origins: {dotted path: who set it}, as in ``ConfigTree``.
        supplied: further parameters that the builder passes, so that a config need not and may not set them.
    """
    checker = _Checker(origins or {}, problems)
    arguments = checker.arguments(target, node, path, supplied)
    return None if arguments is None else functools.partial(target, **arguments)


class _Checker:
    def __init__(self, origins: Mapping[str, str], problems: list[str]) -> None:
        self.origins, self.problems = origins, problems

    def report(self, path: str, problem: str) -> Any:
        """Returns ``_INVALID`` after noting the problem with its path and who set it (the nearest known parent)."""
        known = path
        while known and known not in self.origins:
            known = known.rpartition(".")[0]
        origin = self.origins.get(known)
        self.problems.append(f"{path or 'top level'}{f' ({origin})' if origin else ''}: {problem}")
        return _INVALID

    def refuse(self, hint: Any, value: Any, path: str, reason: str = "") -> Any:
        choices = [choice for choice in h.literals(hint) if isinstance(choice, str)]
        guess = nearest(value, choices) if isinstance(value, str) else None
        extra = (f"; did you mean '{guess}'?" if guess else "") + (f" ({reason})" if reason else "")
        return self.report(path, f"got {show(value)}; allowed: {h.describe(hint)}{extra}")

    def arguments(
        self, target: Callable[..., Any], node: Mapping[str, Any], path: str, supplied: Collection[str] = ()
    ) -> dict[str, Any] | None:
        """Returns the checked keyword arguments, or None after noting every problem."""
        before = len(self.problems)
        try:
            types, parameters = _type_hints(target), inspect.signature(target).parameters
        except (NameError, ValueError) as error:
            name = getattr(target, "__qualname__", repr(target))
            self.report(path, f"cannot read the parameters of {name}: {error}")
            return None
        settable = [name for name, p in parameters.items() if _is_settable(target, p) and name not in supplied]
        arguments = {}
        for key, value in node.items():
            if key in settable:
                arguments[key] = self.convert(types.get(key, Any), value, join(path, key))
            elif key in parameters and parameters[key].kind not in _VARIADIC:
                problem = (
                    f"'{key}' is supplied by the program and cannot be set; allowed: {', '.join(settable) or 'none'}"
                )
                self.report(join(path, key), problem)
            else:
                self.report(join(path, key), f"unknown key '{key}'{suggestion(key, settable)}")
        for name in settable:
            if name not in node and parameters[name].default is inspect.Parameter.empty:
                self.report(join(path, name), f"missing; needs {h.describe(types.get(name, Any))}")
        return arguments if len(self.problems) == before else None

    def convert(self, hint: Any, value: Any, path: str, allowed: Any = None) -> Any:
        """Returns ``value`` as the hint wants it, or ``_INVALID`` after noting why not.

        ``allowed`` is the hint to put in words, where it is wider: the union that ``hint`` is a member of.
        """
        allowed = hint if allowed is None else allowed
        bare, metadata = h.split(hint)
        part = h.part_of(hint)
        if bare in (Any, object) or (value is None and h.accepts_none(bare)):
            return value
        fitting = [m for m in h.members(bare) if h.kind_of_value(value) in h.kinds_of_hint(m)]
        if part is not None:
            return self.part(part, bare, value, path)
        if not fitting:
            return self.refuse(allowed, value, path)
        if h.kind_of_value(value) == "scalar" or len(fitting) > 1:
            return self.leaf(_annotate(Union[tuple(fitting)], metadata), value, path, allowed)  # noqa: UP007
        if fitting[0] is not bare:
            result = self.convert(fitting[0], value, path, allowed)
        elif h.is_dataclass(bare):
            result = self.instance(bare, value, path)
        elif isinstance(value, Mapping):
            result = self.mapping(bare, value, path)
        else:
            result = self.items(bare, value, path, allowed)
        if metadata and result is not _INVALID:
            return self.limits(metadata, result, value, path, allowed)
        return result

    def part(self, part: Part, bare: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping) or "type" not in value:
            got = "'type' is missing" if isinstance(value, Mapping) else f"got {show(value)}, not a mapping with 'type'"
            names = ", ".join(part_names(part.package))
            return self.report(path, f"{got}; write type: NAME and its settings beside it; allowed names: {names}")
        name = value["type"]
        if not isinstance(name, str):
            return self.refuse(str, name, join(path, "type"))
        try:
            target = resolve_part(part.package, name)
        except ConfigError as error:
            return self.report(join(path, "type"), str(error))
        rest = {key: item for key, item in value.items() if key != "type"}
        if not h.is_dataclass(bare):
            arguments = self.arguments(target, rest, path)
            return _INVALID if arguments is None else functools.partial(target, **arguments)
        # Settings of the place beside those of the part: the dataclass takes the keys that it knows, the part the others
        known = {field.name for field in dataclasses.fields(bare)} - {"part"}
        own = self.arguments(bare, {k: v for k, v in rest.items() if k in known}, path, supplied={"part"})
        arguments = self.arguments(target, {k: v for k, v in rest.items() if k not in known}, path)
        if own is None or arguments is None:
            return _INVALID
        return bare(part=functools.partial(target, **arguments), **own)

    def instance(self, settings: type, value: Mapping[str, Any], path: str) -> Any:
        arguments = self.arguments(settings, value, path)
        if arguments is None:
            return _INVALID
        try:
            return settings(**arguments)
        except ValueError as error:  # from __post_init__: rules between several fields
            return self.report(path, str(error))

    def mapping(self, bare: Any, value: Mapping[str, Any], path: str) -> Any:
        key_hint, item_hint = typing.get_args(bare) or (str, Any)
        result = {}
        for key, item in value.items():
            if item is None and not h.accepts_none(item_hint):
                continue  # null removes an entry that a parent file defined
            result[self.convert(key_hint, key, join(path, key))] = self.convert(item_hint, item, join(path, key))
        return _INVALID if _INVALID in result or _INVALID in result.values() else result

    def items(self, bare: Any, value: list[Any], path: str, allowed: Any) -> Any:
        hints = h.item_hints(bare, len(value))
        if hints is None:
            return self.refuse(allowed, value, path)
        result = [
            self.convert(hint, item, join(path, i)) for i, (hint, item) in enumerate(zip(hints, value, strict=True))
        ]
        if any(item is _INVALID for item in result):
            return _INVALID
        kind = typing.get_origin(bare) or bare
        return kind(result) if kind in (tuple, set, frozenset) else result

    def leaf(self, hint: Any, value: Any, path: str, allowed: Any) -> Any:
        """Returns a single value as pydantic's strict JSON mode reads it."""
        choices = h.literals(hint)
        if typing.get_origin(h.split(hint)[0]) is typing.Literal and not _is_among(value, choices):
            return self.refuse(allowed, value, path)  # pydantic takes true for Literal[1]
        try:
            return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            return self.refuse(allowed, value, path, _reason(error))

    def limits(self, metadata: tuple[Any, ...], result: Any, value: Any, path: str, allowed: Any) -> Any:
        """Returns a container if it keeps the limits on the whole of it, such as its length."""
        try:
            return TypeAdapter(_annotate(Any, metadata)).validate_python(result)
        except ValidationError as error:
            return self.refuse(allowed, value, path, _reason(error))


def _is_settable(target: Callable[..., Any], parameter: inspect.Parameter) -> bool:
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return True
    if not h.is_dataclass(target) or any(field.kw_only for field in dataclasses.fields(target)):  # type: ignore[arg-type]
        return False  # positional arguments are supplied by the program
    return parameter.kind not in _VARIADIC


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Returns {parameter: hint}; hints are text in the source (from __future__ import annotations) until resolved."""
    is_plain_class = isinstance(target, type) and not h.is_dataclass(target)
    return typing.get_type_hints(target.__init__ if is_plain_class else target, include_extras=True)


def _is_among(value: Any, choices: list[Any]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _annotate(hint: Any, metadata: tuple[Any, ...]) -> Any:
    arguments = (hint, *metadata)  # Annotated[hint, *metadata] is Python 3.11 syntax
    return Annotated[arguments] if metadata else hint


def _reason(error: ValidationError) -> str:
    """Returns what a validator written in the project says; pydantic's own wording repeats what is allowed."""
    own = [item["msg"] for item in error.errors() if item["type"] in ("value_error", "assertion_error")]
    return "; ".join(own)
