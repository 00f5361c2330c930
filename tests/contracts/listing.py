"""The files of a folder of parts, listed here and not by the code under test, and the one public class of each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil


def modules(package: str) -> list[str]:
    """The names of the package's files that are parts."""
    folder = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))


def class_of(package: str, name: str) -> type:
    """The public class of a file; a failed assertion if there is none or another one beside it."""
    module = importlib.import_module(f"{package}.{name}")
    classes = [
        c
        for name, c in inspect.getmembers(module, inspect.isclass)
        if c.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert len(classes) == 1, f"{module.__name__}: one public class per file, got {classes}"
    return classes[0]
