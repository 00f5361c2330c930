"""``type:`` in a config to a class: by file name in the project's folders, by dotted path outside of it."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.config.errors import ConfigError, plain, show, suggestion


@dataclass(frozen=True)
class Part:
    """Marks a parameter as an open part, to be named by ``type:`` in a config.

    ``Annotated[Callable[..., X], Part("ppmtl.models.necks")]`` receives a functools.partial of the chosen class with its
    checked keyword arguments. ``Annotated[S, Part(...)]`` with a dataclass S that has a field ``part`` receives an S: keys
    that are fields of S are settings of the place (a head's ``answers``), the others go to the part.

    Short names live in ``package``. A folder: ``type: upernet`` is the one public class of ``<package>/upernet.py`` (with
    several: the one named like the file). A module: ``type: random_crop`` is its class of that name.
    """

    package: str


def resolve_part(package: str, type_name: str) -> Callable[..., Any]:
    """The class that ``type: <type_name>`` means where parts of ``package`` (see ``Part``) are expected.

    A name with a dot is the path "my_package.module.Class" of a class or function anywhere.

    Raises:
        ConfigError: if there is no such class (naming the nearest and all) or its module cannot be imported.
    """
    if not isinstance(type_name, str):
        raise ConfigError([f"got {show(type_name)}; allowed: text"])
    if "." in type_name:
        return _load(type_name, type_name, "; a folder that holds your own code must be on PYTHONPATH")
    meant = _meanings(package)
    name = next((name for name in meant if plain(name) == plain(type_name)), None)
    if name is None:
        known = suggestion(type_name, part_names(package))
        raise ConfigError([f"unknown type '{type_name}'{known}, or a dotted path my_package.module.Class"])
    module, classes = meant[name]
    if len(classes) != 1:
        found = ", ".join(classes) or "none"
        raise ConfigError([f"type '{type_name}': {module} must define one public class, it has {found}"])
    return _load(f"{module}.{classes[0]}", type_name)


def target_of(part: Callable[..., Any]) -> Any:
    """The class or function that a part of checked settings calls; the part holds what the config set for it."""
    return getattr(part, "func", part)


def part_names(package: str) -> list[str]:
    """The short names that ``type:`` may take, in alphabetical order."""
    return sorted(name for name, (_, classes) in _meanings(package).items() if len(classes) == 1)


def spelling(name: str) -> str:
    """A short name as configs write it: ``random_crop`` for the class RandomCrop of a module of parts."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def name_of(package: str, target: Callable[..., Any]) -> str:
    """What ``type:`` says for a class or function where parts of ``package`` are expected; a dotted path if it is no part."""
    module, name = target.__module__, target.__qualname__
    if module == package:
        return spelling(name)
    return module.removeprefix(f"{package}.") if module.rpartition(".")[0] == package else f"{module}.{name}"


def _meanings(package: str) -> dict[str, tuple[str, list[str]]]:
    """{short name: its module and the class that it means, or all that it could mean}.

    Read from the source and not imported: listing names then needs nothing but what is really used, such as Paddle.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"Part({package!r}) names no module"
    if spec.submodule_search_locations is None:
        return {name: (package, [name]) for name in _class_names(Path(str(spec.origin)))}
    meant = {}
    for file in (file for folder in spec.submodule_search_locations for file in Path(folder).glob("[!_]*.py")):
        names = _class_names(file)
        alike = [name for name in names if plain(name) == plain(file.stem)]
        meant[file.stem] = (f"{package}.{file.stem}", alike or names)
    return meant


@functools.cache  # a config names many parts of the same few files
def _class_names(file: Path) -> list[str]:
    """The public classes of a file, without Protocols."""
    try:
        classes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    except SyntaxError:
        return [file.stem]  # still offered: choosing it shows what is wrong with it
    return [c.name for c in classes if c.name[0] != "_" and "Protocol" not in map(ast.unparse, c.bases)]


def _load(dotted: str, type_name: str, fix: str = "") -> Callable[..., Any]:
    module_name, _, name = dotted.rpartition(".")
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise ConfigError([f"type '{type_name}' is not a dotted path; allowed: my_package.module.Class"])
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError([f"type '{type_name}': cannot import {module_name}: {error}{fix}"]) from error
    if not hasattr(module, name):
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError([f"type '{type_name}': {module_name} has no '{name}'{suggestion(name, public)}"])
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError([f"type '{type_name}' is a {type(found).__name__}; it must be a class or a function"])
    return found  # type: ignore[no-any-return]
