"""What a key means, taken from where it is declared: docstrings and the comments of settings fields."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

_SECTIONS = ("Args:", "Attributes:")
_ENTRY = re.compile(r"    ((?:\*?\w+)(?:, \w+)*): (.*)")

# What a number is counted in stands in its meaning: "[px]", "[share]", "[0 to 1]". "[-hue, hue]" and "partial[1]" are none
_UNIT = re.compile(r"(?<![\w`])\[(\w[\w ]*[A-Za-z]|0 to 1)\]")


def meanings(target: Callable[..., Any]) -> dict[str, str]:
    """{parameter of a class or function: what it means}, its base classes' parameters included.

    From the ``Args`` and ``Attributes`` of docstrings, and from the comment behind or above a field.
    """
    found: dict[str, str] = {}
    for part in reversed(inspect.getmro(target)[:-1]) if isinstance(target, type) else [target]:
        found |= _of_comments(part) if isinstance(part, type) and "__annotations__" in vars(part) else {}
        found |= section(part.__doc__ or "", _SECTIONS)
    return found


def section(doc: str, titles: tuple[str, ...]) -> dict[str, str]:
    """{name: text} of the ``name: text`` entries below one of ``titles`` in a Google-style docstring.

    ``a, b: text`` says the same of both.
    """
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(doc).splitlines():
        if line and not line.startswith(" "):
            inside, names = line in titles, []
        elif inside and (entry := _ENTRY.fullmatch(line)):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif inside and line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: text.replace("``", "`") for name, text in found.items()}


def first_line(target: Any) -> str:
    """The first sentence-like line of a docstring, without its full stop; "" if there is none."""
    return (inspect.getdoc(target) or "").partition("\n")[0].replace("``", "`").rstrip(".")


def unit_of(meaning: str) -> str:
    """What the number with this meaning is counted in: the first text in square brackets, as in "(height, width) [px]"."""
    match = _UNIT.search(meaning)
    return match[1] if match else ""


def _of_comments(settings: type) -> dict[str, str]:
    """{field: the comment behind it, or above it}."""
    try:
        lines = textwrap.dedent(inspect.getsource(settings)).splitlines()
    except (OSError, TypeError):  # made by make_dataclass, without a file
        return {}
    found = {}
    for node in ast.parse("\n".join(lines)).body[0].body:  # type: ignore[attr-defined]
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.insert(0, line.strip().lstrip("# "))
        behind = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset :].decode().strip()
        text = " ".join([*above, behind.lstrip("# ")]).strip()
        if text:
            found[node.target.id] = text.replace("``", "`")
    return found
