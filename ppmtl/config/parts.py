"""``type:`` in a config to a class: by file name in the project's folders, by dotted path outside of it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ppmtl.config.errors import ConfigError, suggestion


@dataclass(frozen=True)
class Part:
    """Marks a parameter as an open part, to be named by ``type:`` in a config.

    Used as ``Annotated[Callable[..., X], Part("ppmtl.models.necks")]``; the parameter then receives a functools.partial
    of the chosen class with its checked keyword arguments. ``Annotated[S, Part(...)]`` with a dataclass S that has a field
    ``part`` receives an S: keys that are fields of S are settings of the place (a head's ``answers``), the others go to
    the part.

    Attributes:
        package: where short names live. A folder: ``type: upernet`` is the one public class of ``<package>/upernet.py``
            (with several: the one named like the file). A single module: ``type: random_crop`` (or ``RandomCrop``) is
            the class of that name in it.
    """

    package: str


def resolve_part(package: str, type_name: str) -> Callable[..., Any]:
    """Returns the class that ``type: <type_name>`` means where parts of ``package`` are expected.

    Args:
        package: as in ``Part``.
        type_name: a short name, or a dotted path "my_package.module.Class" to a callable outside the project.

    Raises:
        ConfigError: if there is no such class (naming the nearest and all) or its module cannot be imported.
    """
    if "." in type_name:
        return _from_outside(type_name)
    folders = _folders(package)
    if folders is None:
        return _by_class_name(importlib.import_module(package), type_name)
    usable = type_name.isidentifier() and not type_name.startswith("_")
    if not usable or not any((folder / f"{type_name}.py").is_file() for folder in folders):
        raise ConfigError([_unknown(type_name, part_names(package))])
    module = _import(f"{package}.{type_name}", f"type '{type_name}'")
    classes = _public_classes(module)
    chosen = _chosen(classes, type_name)
    if chosen is None:
        found = ", ".join(classes) or "none"
        raise ConfigError([f"type '{type_name}': {module.__name__} must define one public class, it has {found}"])
    return classes[chosen]


def part_names(package: str) -> list[str]:
    """Returns the short names that ``type:`` may take, in alphabetical order; a folder's modules are not imported."""
    folders = _folders(package)
    if folders is None:
        return sorted(_part_classes(importlib.import_module(package)))
    files = [file for folder in folders for file in folder.glob("[!_]*.py")]
    return sorted(file.stem for file in files if _chosen(_class_names(file), file.stem))


def _folders(package: str) -> list[Path] | None:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"Part({package!r}) names no module", name=package)
    locations = spec.submodule_search_locations
    return None if locations is None else [Path(location) for location in locations]


def _class_names(file: Path) -> list[str]:
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except SyntaxError:
        return [file.stem]  # still offered: choosing it shows what is wrong with it
    return [node.name for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def _chosen(class_names: Iterable[str], module_name: str) -> str | None:
    names = list(class_names)
    alike = [name for name in names if _plain(name) == _plain(module_name)]
    candidates = names if len(names) == 1 else alike
    return candidates[0] if len(candidates) == 1 else None


def _plain(name: str) -> str:
    return name.replace("_", "").lower()  # RandomCrop and random_crop are the same name


def _public_classes(module: ModuleType) -> dict[str, type]:
    members = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    return {n: c for n, c in members.items() if c.__module__ == module.__name__ and not n.startswith("_")}


def _part_classes(module: ModuleType) -> dict[str, type]:
    classes = _public_classes(module).items()
    return {n: c for n, c in classes if not inspect.isabstract(c) and not getattr(c, "_is_protocol", False)}


def _by_class_name(module: ModuleType, type_name: str) -> type:
    classes = _part_classes(module)
    alike = [name for name in classes if _plain(name) == _plain(type_name)]
    if len(alike) != 1:
        raise ConfigError([_unknown(type_name, sorted(classes))])
    return classes[alike[0]]


def _from_outside(dotted: str) -> Callable[..., Any]:
    module_name, _, name = dotted.rpartition(".")
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise ConfigError([f"type '{dotted}' is not a dotted path; allowed: my_package.module.Class"])
    module = _import(module_name, f"type '{dotted}'", "; a folder that holds your own code must be on PYTHONPATH")
    if not hasattr(module, name):
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError([f"type '{dotted}': {module_name} has no '{name}'{suggestion(name, public)}"])
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError([f"type '{dotted}' is a {type(found).__name__}; it must be a class or a function"])
    return found  # type: ignore[no-any-return]


def _import(module_name: str, what: str, mend: str = "") -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError([f"{what}: cannot import {module_name}: {error}{mend}"]) from error


def _unknown(type_name: str, names: Sequence[str]) -> str:
    return f"unknown type '{type_name}'{suggestion(type_name, names)}, or a dotted path my_package.module.Class"
