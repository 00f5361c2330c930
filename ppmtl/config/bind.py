"""Config trees to checked objects: the keys of a mapping are the keyword arguments of one callable.

The type hints of that callable are the schema, and one walk over hints and values together finds every problem with its
exact path. Values are taken strictly: "1" is no number, true is no 1; a whole number is a float, a text is a Path.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from ppmtl.config import hints as h
from ppmtl.config.complete import complete
from ppmtl.config.errors import ConfigError, in_other_places, join, nearest, plain, show, suggestion
from ppmtl.config.parameters import settable, type_hints
from ppmtl.config.parts import Part, part_names, resolve_part
from ppmtl.config.tree import ConfigTree

T = TypeVar("T")
_MISFIT: Any = object()  # a value of another type than the hint wants; None is a value
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check(settings: type[T], tree: ConfigTree) -> T:
    """An instance of the dataclass ``settings``, filled from the tree.

    Open parts inside become functools.partial objects of the chosen classes; nothing is constructed but dataclasses.

    Raises:
        ConfigError: with all problems of the tree.
    """
    walk = _Walk(tree.origins, lambda: complete(settings, tree).origins)
    result = walk.convert(settings, tree.data, "")
    if walk.problems:
        problems = [f"{path or 'top level'}{walk.origin(path)}: {problem}" for path, problem in walk.problems]
        raise ConfigError(problems, tree.file)
    return result  # type: ignore[no-any-return]


class _Walk:
    """Converts values by hints and notes problems; what it returns counts only if it noted none meanwhile."""

    def __init__(self, origins: Mapping[str, str], known: Callable[[], Collection[str]]) -> None:
        self.origins = origins
        self.known = known  # the dotted paths that this config may have, for hints
        self.problems: list[tuple[str, str]] = []  # (dotted path, what is wrong there)

    def note(self, path: str, problem: str) -> Any:
        self.problems.append((path, problem))

    def origin(self, path: str) -> str:
        while path and path not in self.origins:
            path = path.rpartition(".")[0]  # what is missing was left out by who set its parent
        return f" ({self.origins[path]})" if path in self.origins else ""

    def convert(self, hint: Any, value: Any, path: str) -> Any:
        """``value`` as the hint wants it."""
        result = self.attempt(hint, value, path)
        if result is _MISFIT:
            literals = [arg for member in h.members(hint) for arg in typing.get_args(member) if isinstance(arg, str)]
            guess = nearest(value, literals) if isinstance(value, str) else None
            extra = f"; did you mean '{guess}'?" if guess else ""
            self.note(path, f"got {show(value)}; allowed: {h.describe(hint)}{extra}")
        return result

    def attempt(self, hint: Any, value: Any, path: str) -> Any:
        """``value`` as the hint wants it, or ``_MISFIT``; notes only problems inside of ``value``."""
        bare, before = h.bare(hint), len(self.problems)
        if bare in (Any, object) or (value is None and h.accepts_none(hint)):
            return value
        if part := h.part_of(hint):
            return self.part(part, bare, value, path)
        choices = h.members(bare)
        result = self.plain(bare, value, path) if len(choices) == 1 else self.one_of(choices, value, path)
        fits = result is not _MISFIT and (len(self.problems) > before or h.keeps_limits(result, hint))
        return result if fits else _MISFIT

    def one_of(self, choices: Collection[Any], value: Any, path: str) -> Any:
        """``attempt`` for a union: the first member that fits, else the problems of the only one of the same shape."""
        noted = []
        for choice in choices:
            trial = _Walk(self.origins, self.known)
            result = trial.attempt(choice, value, path)
            if result is not _MISFIT and not trial.problems:
                return result
            noted += [trial.problems] if trial.problems else []
        if len(noted) != 1:
            return _MISFIT
        self.problems += noted[0]
        return None

    def plain(self, bare: Any, value: Any, path: str) -> Any:
        """``attempt`` for a hint that is no union, without its limits."""
        origin, args = typing.get_origin(bare) or bare, typing.get_args(bare)
        if h.is_settings(bare) and isinstance(value, Mapping):
            return self.construct(bare, self.arguments(bare, value, path), path)
        if origin in h.MAPPINGS and isinstance(value, Mapping):
            items = args[1] if args else Any
            kept = {key: item for key, item in value.items() if item is not None or h.accepts_none(items)}
            return {key: self.named(items, kept, key, path) for key in kept}  # null removed what a parent file defined
        if origin in h.LISTS and isinstance(value, (list, tuple)):
            is_fixed = origin is tuple and args[-1:] != (Ellipsis,) and args
            hints = args if is_fixed else (args[:1] or (Any,)) * len(value)
            if len(hints) != len(value):
                return _MISFIT
            found = [self.convert(hint, value[i], join(path, i)) for i, hint in enumerate(hints)]
            return tuple(found) if origin is tuple else found
        if origin is Literal:
            return value if any(type(value) is type(choice) and value == choice for choice in args) else _MISFIT
        if (bare, type(value)) in ((float, int), (Path, str)):
            return bare(value)
        return value if type(value) is bare else _MISFIT

    def named(self, hint: Any, items: Mapping[str, Any], key: str, path: str) -> Any:
        """The entry ``key`` of a mapping of named things; says which name was meant if an override made up this one."""
        before, here = len(self.problems), join(path, key)
        result = self.convert(hint, items[key], here)
        guess = nearest(key, [name for name in items if name != key])
        if len(self.problems) > before and guess and self.origins.get(here, "").startswith("-o "):
            where, problem = self.problems[before]
            self.problems[before] = where, f"{problem}; or did you mean '{join(path, guess)}'?"
        return result

    def part(self, part: Part, place: Any, value: Any, path: str) -> Any:
        """A partial of the class that ``type`` names; in an instance of ``place`` if that is a dataclass (see Part)."""
        if not isinstance(value, Mapping) or "type" not in value:
            got = "'type' is missing" if isinstance(value, Mapping) else f"got {show(value)}, not a mapping with 'type'"
            names = ", ".join(part_names(part.package))
            return self.note(path, f"{got}; write type: NAME and its settings beside it; allowed names: {names}")
        try:
            target = resolve_part(part.package, value["type"])
        except ConfigError as error:
            return self.note(join(path, "type"), str(error))
        own_keys = [key for key in settable(place) if key != "part"] if h.is_settings(place) else []
        rest = {key: item for key, item in value.items() if key not in ("type", *own_keys)}
        arguments = self.arguments(target, rest, path, elsewhere=own_keys)
        chosen = None if arguments is None else functools.partial(target, **arguments)
        if not h.is_settings(place):
            return chosen
        own = self.arguments(place, {key: value[key] for key in own_keys if key in value}, path, elsewhere=["part"])
        return self.construct(place, None if own is None or chosen is None else {**own, "part": chosen}, path)

    def construct(self, settings: Any, arguments: Mapping[str, Any] | None, path: str) -> Any:
        try:
            return None if arguments is None else settings(**arguments)
        except ValueError as error:  # from __post_init__: rules between several fields
            return self.note(path, str(error))

    def arguments(
        self, target: Callable[..., Any], node: Mapping[str, Any], path: str, elsewhere: Collection[str] = ()
    ) -> dict[str, Any] | None:
        """The keyword arguments of ``target``, or None; keys named in ``elsewhere`` are allowed and not its own."""
        before = len(self.problems)
        try:
            types, parameters = type_hints(target), inspect.signature(target).parameters
        except (NameError, ValueError) as error:
            name = getattr(target, "__qualname__", repr(target))
            return self.note(path, f"cannot read the parameters of {name}: {error}")  # type: ignore[no-any-return]
        own = [name for name in settable(target) if name not in elsewhere]
        allowed, arguments = [*own, *elsewhere], {}
        for key, value in node.items():
            if key in own:
                arguments[key] = self.convert(types.get(key, Any), value, join(path, key))
                continue
            problem = f"unknown key '{key}'"
            if key in parameters and parameters[key].kind not in _VARIADIC:
                problem = f"'{key}' is supplied by the program and cannot be set"
            guess = nearest(key, allowed)
            is_sure = guess is not None and plain(guess) == plain(key)
            others = [] if is_sure else in_other_places(key, self.known(), exactly=guess is not None)
            self.note(join(path, key), problem + suggestion(key, allowed, others))
        for name in own:
            if name not in node and parameters[name].default is inspect.Parameter.empty:
                self.note(join(path, name), f"missing; needs {h.describe(types.get(name, Any))}")
        return arguments if len(self.problems) == before else None
