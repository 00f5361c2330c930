"""YAML text to nodes that remember their line: YAML 1.2 scalars, nothing that runs code, nothing dropped in silence.

PyYAML implements YAML 1.1, where ``1e-4`` is a text, ``12:30`` is 750, ``010`` is 8 and ``on`` is true. Here: true and
false (not yes/no/on/off), null and ~, decimal, 0o and 0x whole numbers, floats with or without a dot; the rest is text.
Source: YAML 1.2.2, section 10.3.2 (core schema).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from ppmtl.config.errors import show

_TAG = "tag:yaml.org,2002:"


def _read_int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))  # int(text, 0) would refuse 010


def _read_float(text: str) -> float:
    return float(re.sub(r"\.(?=[iInN])", "", text))  # .inf and .nan carry a dot that Python does not know


_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), lambda _: None),
    "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), lambda text: text.lower() == "true"),
    "int": (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), _read_int),
    "float": (
        re.compile(r"(?:[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"),
        _read_float,
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader that knows only the scalars above and the merge key ``<<``."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's protocol)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text whenever this reader, or a YAML 1.1 reader, would not read it back as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True  # a saved config is read by people: repeat shared values instead of &id001

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:  # noqa: ARG002
        return super().represent_mapping(
            tag, mapping, flow_style=False
        )  # one key per line; lists of scalars stay short


for _name, (_pattern, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, [None])
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, [None])
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"<<\Z"), ["<"])


@dataclass(frozen=True)
class Node:
    """A value and who set it.

    Attributes:
        value: {key: Node}, [Node], or a scalar.
        origin: "configs/x.yml:12" (the line of the key or list item) or "-o a.b=1".
    """

    value: Any
    origin: str


def parse(text: str, origin_of: Callable[[int], str], problems: list[str]) -> Node | None:
    """Returns the one document in ``text`` (value None if it is empty), or None if it cannot be read.

    Args:
        text: YAML.
        origin_of: maps a line number, counted from 1, to the origin to remember and to blame.
        problems: gets one line per mistake.
    """
    before = len(problems)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        node = _Builder(loader, origin_of, problems).build(root) if root else Node(None, origin_of(1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin_of(mark.line + 1)}, column {mark.column + 1}" if mark else origin_of(1)
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        problems.append(f"{where}: not valid YAML: {reason}")
    except yaml.YAMLError as error:
        problems.append(f"{origin_of(1)}: not valid YAML: {' '.join(str(error).split())}")
    return node if len(problems) == before else None


class _Builder:
    def __init__(self, loader: _Loader, origin_of: Callable[[int], str], problems: list[str]) -> None:
        self.loader, self.origin_of, self.problems = loader, origin_of, problems
        self.open: list[yaml.Node] = []  # from the root to the node being built: an alias to one of them never ends
        self.checked: list[yaml.Node] = []  # mappings whose keys are known to be unique

    def build(self, node: yaml.Node, line: int | None = None) -> Node:
        line = node.start_mark.line + 1 if line is None else line
        origin = self.origin_of(line)
        if any(node is parent for parent in self.open):
            self.problems.append(f"{origin}: an alias (*name) refers to a mapping or list that it is part of")
            return Node(None, origin)
        self.open.append(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            value: Any = self.mapping(node)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            value = [self.build(item) for item in node.value]
        elif isinstance(node, yaml.ScalarNode):
            value = self.scalar(node, origin)
        else:
            self.refuse_tag(node, origin)
            value = None
        self.open.pop()
        return Node(value, origin)

    def mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        # An aliased mapping comes again after << was resolved in it, and then holds the keys it overrides as well.
        if not any(node is done for done in self.checked):
            self.checked.append(node)
            self.check_keys(node)
            self.loader.flatten_mapping(node)
        keyed = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        return {key.value: self.build(value, key.start_mark.line + 1) for key, value in keyed}

    def check_keys(self, node: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == _TAG + "merge":
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                got = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) and key.value else "another kind"
                problem = f"a key must be text, got {got}; put it in quotes"
            elif not key.value.strip() or "." in key.value:
                problem = f"a key must not be empty or contain a dot, got '{key.value}'; write nested mappings instead"
            elif key.value in seen:
                first = self.origin_of(seen[key.value])
                problem = f"key '{key.value}' is given twice in one mapping (first at {first}); keep one of them"
            else:
                seen[key.value] = line
                continue
            self.problems.append(f"{self.origin_of(line)}: {problem}")

    def scalar(self, node: yaml.ScalarNode, origin: str) -> Any:
        if node.tag == _TAG + "str":
            return node.value
        pattern, read = _SCALARS.get(node.tag.removeprefix(_TAG), (None, None))
        if pattern is None or read is None:
            self.refuse_tag(node, origin)
            return None
        if not pattern.match(node.value):
            kind = node.tag.removeprefix(_TAG)
            self.problems.append(f"{origin}: {show(node.value)} is tagged !!{kind} but is not a valid {kind}")
            return None
        return read(node.value)

    def refuse_tag(self, node: yaml.Node, origin: str) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self.problems.append(
            f"{origin}: YAML tag '{tag}' is not understood; name a class with 'type:' inside the mapping"
        )


def to_text(data: Any) -> str:
    """Returns ``data`` (dicts, lists, scalars) as YAML that ``parse`` reads back to the same values."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
