"""Every key that a config may have, as data: read from the hints, defaults and docstrings of the code that takes it."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from ppmtl.config import hints as h
from ppmtl.config.errors import join
from ppmtl.config.meanings import first_line, meanings, unit_of
from ppmtl.config.parameters import REQUIRED, parameters_of
from ppmtl.config.parts import name_of, part_names, resolve_part, spelling


@dataclasses.dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        path: dotted; ``<head>`` and ``<n>`` stand for a name or index of the config's own.
        hint: what it allows.
        default: its value where a config leaves it out; ``REQUIRED`` if it may not.
        meaning: in words.
        of: the part that has it; "" if it is there whatever the parts.
        package: of the parts that its value, or every item of it, names by ``type``; "" = its value is no part.
    """

    path: str
    hint: Any
    default: Any
    meaning: str
    of: str = ""
    package: str = ""

    @property
    def is_number(self) -> bool:
        """Whether its value is a number, or a list or mapping of numbers, and so needs a unit."""
        return _has_number(self.hint)

    @property
    def unit(self) -> str:
        """What its number is counted in; "" for what is no number."""
        return unit_of(self.meaning) if self.is_number else ""

    def allowed(self) -> str:
        """The values that it may have, in words."""
        if not self.package:
            return re.sub(r"a mapping with [\w, ]+?(?=, or null|$)", "a mapping", h.describe(self.hint))  # keys follow
        words = {dict: "a mapping of parts", tuple: "a list of parts"}
        kinds = [typing.get_origin(member) for member in h.members(self.hint)]
        word = next((words[kind] for kind in kinds if kind in words), "a part")
        names = ", ".join(map(spelling, part_names(self.package)))
        return f"{word}: {names}{', or null' if h.accepts_none(self.hint) else ''}"

    def default_text(self) -> str:
        """The default as a config writes it."""
        if self.default is REQUIRED:
            return "required"
        return _text(self.default, self.package)


def keys_of(target: Callable[..., Any], path: str = "", *, into_parts: bool = True) -> Iterator[Key]:
    """The keys of a settings class or a part below ``path``, each before those below it.

    Args:
        target: what takes them.
        path: put before every path.
        into_parts: also those of every part that a ``type`` may name (their modules are imported for it).
    """
    return _keys(target, path, "", () if into_parts else None)


def matches(key: Key, prefix: str) -> bool:
    """Whether a key's path begins with ``prefix``; ``tasks.det.tta`` finds ``tasks.<task>.tta``, ``train.e`` train.epochs."""
    wanted, have = prefix.split("."), key.path.split(".")
    same = all(a == b or b.startswith("<") for a, b in zip(wanted[:-1], have[:-1], strict=False))
    last = have[len(wanted) - 1 : len(wanted)]
    return same and bool(last) and (last[0].startswith(wanted[-1]) or last[0].startswith("<"))


def _keys(target: Callable[..., Any], path: str, of: str, inside: tuple[str, ...] | None) -> Iterator[Key]:
    texts = meanings(target)
    for name, parameter in parameters_of(target).items():
        if name == "part":  # where a dataclass holds the part that stands at its own place
            continue
        here, package = join(path, name), _package(parameter.hint)
        text = texts.get(name) or _settings_line(parameter.hint)
        yield Key(here, parameter.hint, parameter.default, text, of, package)
        yield from _below(parameter.hint, here, of, inside)


def _below(hint: Any, path: str, of: str, inside: tuple[str, ...] | None) -> Iterator[Key]:
    """The keys below a value; ``inside``: the packages of the parts around it (a reader may hold readers), None = stay out."""
    for member in h.choices(hint):
        bare = h.bare(member)
        origin, args = typing.get_origin(bare) or bare, typing.get_args(bare)
        part = h.part_of(member)
        if h.is_settings(bare):
            yield from _keys(bare, path, of, inside)
        elif origin in h.MAPPINGS and args:
            singular = path.rpartition(".")[2].removesuffix("s")
            yield from _below(args[1], f"{path}.<{singular}>", of, inside)
        elif origin in h.LISTS and args:
            yield from _below(args[0], f"{path}.<n>", of, inside)
        if part and inside is not None and part.package not in inside:
            for name in part_names(part.package):
                yield from _keys(resolve_part(part.package, name), path, spelling(name), (*inside, part.package))


def _package(hint: Any) -> str:
    for member in h.choices(hint):
        if part := h.part_of(member):
            return part.package
        for item in typing.get_args(h.bare(member)):
            if item is not Ellipsis and (found := _package(item)):
                return found
    return ""


def _settings_line(hint: Any) -> str:
    return next((first_line(member) for member in map(h.bare, h.members(hint)) if h.is_settings(member)), "")


def _has_number(hint: Any) -> bool:
    members = [h.bare(member) for member in h.members(hint)]
    return any(
        member in (int, float)
        or (typing.get_origin(member) is typing.Literal and any(type(v) is int for v in typing.get_args(member)))
        or (typing.get_origin(member) in (*h.MAPPINGS, *h.LISTS) and any(map(_has_number, typing.get_args(member))))
        for member in members
    )


def _text(value: Any, package: str) -> str:
    if isinstance(value, functools.partial):
        return name_of(package, value.func)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_text(item, package) for item in value)}]"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    return f"{value:.4g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else str(value)
