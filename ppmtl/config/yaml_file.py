"""YAML text to plain data that knows its lines: YAML 1.2 scalars, no tags, nothing dropped in silence.

PyYAML parses; its YAML 1.1 scalars are not used, since they make ``1e-4`` a text, ``12:30`` 750, ``010`` 8 and ``on`` true.
Source: YAML 1.2.2, section 10.3.2 (core schema).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from ppmtl.config.errors import join, show

_TAG = "tag:yaml.org,2002:"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*|(?=[eE])))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "null": (r"~|null|Null|NULL|", lambda _: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]{1,99}", int),
    "hex": (r"0o[0-7]{1,99}|0x[0-9a-fA-F]{1,99}", lambda text: int(text, 0)),
    "float": (_FLOAT, lambda text: float(re.sub(r"\.(?=[iInN])", "", text))),  # Python writes inf without the dot
}


class _Loader(yaml.SafeLoader):
    """Gives no tag to a node that has none, so that every tag that is seen was written by hand."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002 (PyYAML's signature)
        return ""


class _Dumper(yaml.SafeDumper):
    """Quotes a text whenever this reader, or a YAML 1.1 reader, would not read it back as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True  # a saved config is read by people: repeat shared values instead of &id001

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:  # noqa: ARG002
        # One key per line; lists of scalars stay short
        node = super().represent_mapping(tag, mapping, flow_style=False)
        for key, _ in node.value:
            key.style = '"' if "." in key.value else key.style
        return node


for _name, (_pattern, _) in _SCALARS.items():
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), [None])


def to_text(data: Any, width: int = 120) -> str:
    """``data`` (dicts, lists, scalars) as YAML that ``parse`` reads back to the same values; lines of ``width`` or less."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=width)


def parse(text: str, origin_of: Callable[[int], str], problems: list[str]) -> tuple[Any, dict[str, str]]:
    """The one document in ``text`` (None if it is empty) and {dotted path: origin}; counts only if there is no problem.

    ``origin_of`` maps a line number, counted from 1, to the origin to remember; every mistake adds to ``problems``.
    """
    builder = _Builder(origin_of, problems)
    try:
        root = _Loader(text).get_single_node()
        return (builder.build(root, root.start_mark.line + 1, "") if root else None), builder.origins
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin_of(mark.line + 1)}, column {mark.column + 1}" if mark else origin_of(1)
        problems.append(f"{where}: not valid YAML: {': '.join(filter(None, (error.context, error.problem)))}")
    except yaml.YAMLError as error:
        problems.append(f"{origin_of(1)}: not valid YAML: {' '.join(str(error).split())}")
    return None, {}


class _Builder:
    def __init__(self, origin_of: Callable[[int], str], problems: list[str]) -> None:
        self.origin_of, self.problems = origin_of, problems
        self.origins: dict[str, str] = {}
        self.open: list[yaml.Node] = []  # from the root to the node being built: an alias to one of them never ends

    def build(self, node: Any, line: int, path: str) -> Any:
        self.origins[path] = origin = self.origin_of(line)
        value: Any = None
        if any(node is parent for parent in self.open):
            self.problems.append(f"{origin}: an alias (*name) refers to a mapping or list that it is part of")
            return None
        self.open.append(node)
        if node.tag:
            tag = node.tag.replace(_TAG, "!!")
            self.problems.append(f"{origin}: YAML tag '{tag}' is not understood; name a class with 'type: NAME'")
        elif isinstance(node, yaml.MappingNode):
            value = self.mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.build(item, item.start_mark.line + 1, join(path, i)) for i, item in enumerate(node.value)]
        else:
            value = _scalar(node)
        self.open.pop()
        return value

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) and not key_node.tag else key_node.value
            if not isinstance(key, str):
                got = "a list or mapping" if isinstance(key, list) else show(key)
                problem = f"a key must be text, got {got}; put it in quotes"
            elif not key.strip():
                problem = "a key must not be empty"
            elif "." in key and key_node.style is None:
                problem = (
                    f"got the key '{key}'; write nested mappings, or put it in quotes where the dot is part of a name"
                )
            elif key == "<<" and key_node.style is None:
                problem = "'<<' is not part of YAML 1.2; repeat the keys, or put them in a file for _base_"
            elif key in result:
                first = self.origins[join(path, key)]
                problem = f"key '{key}' is given twice in one mapping (first at {first}); keep one of them"
            else:
                result[key] = self.build(value_node, line, join(path, key))
                continue
            self.problems.append(f"{self.origin_of(line)}: {problem}")
        return result


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.style is None:  # neither in quotes nor a block
        for pattern, read in _SCALARS.values():
            if re.fullmatch(pattern, node.value):
                return read(node.value)
    return node.value
