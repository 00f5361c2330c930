"""Configs put into words: the resolved tree with the origin of every value, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ppmtl.config.complete import complete, leaves
from ppmtl.config.tree import ConfigTree
from ppmtl.config.yaml_file import parse, to_text

_COLUMN = 60  # where remarks begin, if the line is not longer
_ABSENT: Any = object()


def annotated(data: Any, remark_of: Callable[[str], str]) -> str:
    """``data`` as YAML with a remark behind every line that has one; it reads back as the same data.

    Args:
        data: dicts, lists and scalars.
        remark_of: dotted path of a value -> the remark; "" = none.
    """
    lines = to_text(data, width=1 << 30).splitlines()  # one line per value: a remark must not end up inside a text
    of_line: dict[int, str] = {}
    for path, line in parse("\n".join(lines), str, [])[1].items():
        if path:
            of_line.setdefault(int(line), path)  # of a list in brackets: the list, not its items
    for number, path in _values(data, of_line):
        if remark := remark_of(path):
            lines[number - 1] = f"{lines[number - 1]:<{_COLUMN}}  # {remark}"
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _values(data: Any, of_line: dict[int, str]) -> list[tuple[int, str]]:
    """(line, path) of the lines that hold a value and not only the name of a mapping."""
    found = leaves(ConfigTree(data, {}, ""))
    of_path = {path: number for number, path in of_line.items()}
    result = []
    for path, value in found.items():
        parent = path
        while parent and parent not in of_path:  # the first key of a list's item stands on the item's own line
            parent = parent.rpartition(".")[0]
        if parent and not (isinstance(value, str) and "\n" in value):  # goes on over several lines
            result.append((of_path[parent], path))
    return result


def explained(settings: type, tree: ConfigTree) -> str:
    """The tree with all defaults as YAML, behind every value who set it; loading it gives the same run."""
    every = complete(settings, tree)
    return annotated(every.data, lambda path: every.origins[path])


def differences(settings: type, *trees: ConfigTree) -> list[str]:
    """One line per value that two configs, defaults included, do not have in common: what it is in each, and who set it."""
    first, second = (complete(settings, tree) for tree in trees)
    ours, theirs = leaves(first), leaves(second)
    lines = []
    for path in dict.fromkeys([*ours, *theirs]):
        old, new = ours.get(path, _ABSENT), theirs.get(path, _ABSENT)
        if old == new and type(old) is type(new):
            continue
        lines.append(f"{path}: {_words(old, first, path)} -> {_words(new, second, path)}")
    return lines


def _words(value: Any, tree: ConfigTree, path: str) -> str:
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return f"{text} [{tree.origins[path]}]"
