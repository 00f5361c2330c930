"""Data sets of other formats -> what the readers read. Every file here without an underscore is one format.

A format is one function ``convert(data, out, *, ...)`` that tells an ``Output`` what it finds below the folder ``data``. The
docstring of its file is the tool's help, its keyword-only parameters ``name: Annotated[type, "help"] = default`` are flags.
"""

from __future__ import annotations

import pkgutil


def formats() -> list[str]:
    """The names of all formats, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
