"""Config files and command-line overrides, merged to one tree that knows where every value came from.

How files combine (``_base_:`` names one parent or a list, relative to the file that names it):
  * mappings merge key by key, later parents win over earlier ones, the file itself over its parents;
  * a mapping whose ``type`` changes replaces the parent's mapping, since its other keys belong to another class;
  * lists are replaced whole;
  * an empty mapping ``{}`` empties the parent's; ``null`` sets a value to null, and removes an entry from a mapping of
    named things: ``heads: {det: null}`` drops the head "det" that a parent defined.
An override ``-o a.b=1`` acts like one more child file; list items are reached by index (``transforms.0.size=[1, 2]``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.config.errors import ConfigError, nearest, show
from ppmtl.config.yaml_file import Node, parse, to_text

BASE = "_base_"
FLAG = "-o "


@dataclass(frozen=True)
class ConfigTree:
    """A resolved, not yet checked config.

    Attributes:
        data: nested dicts, lists and scalars, as if written in one file.
        origins: {dotted path: who set it}, for every mapping, list and scalar: "configs/x.yml:12" or "-o a.b=1".
        file: the config that was asked for.
    """

    data: dict[str, Any]
    origins: dict[str, str]
    file: str

    def with_values(self, values: Mapping[str, Any], origin: str) -> ConfigTree:
        """The tree with other values; ``origin`` is who says so."""
        data, origins = copy.deepcopy(self.data), dict(self.origins)
        for path, value in values.items():
            *parents, key = path.split(".")
            node = data
            for name in parents:
                node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
            node[key] = value
            origins[path] = origin
        return ConfigTree(data, origins, self.file)

    def without(self, paths: Sequence[str]) -> ConfigTree:
        """The tree without these keys."""
        data = copy.deepcopy(self.data)
        for path in paths:
            *parents, key = path.split(".")
            node: Any = data
            for name in parents:
                node = node[name]
            del node[key]
        return ConfigTree(data, dict(self.origins), self.file)

    def dump(self) -> str:
        """Returns the resolved config as YAML without parents; loading it again gives the same data."""
        return dump(self)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ConfigTree:
    """Returns the config at ``path`` merged with its parents and overridden.

    Args:
        path: a YAML file (UTF-8).
        overrides: "a.b.c=value" each, the value typed like YAML; later ones win.

    Raises:
        ConfigError: with every unreadable file, syntax mistake and malformed override at once.
    """
    problems: list[str] = []
    root = _load_file(Path(path), (), "", problems) or Node({}, str(path))
    for override in overrides:
        root = _override(root, override, problems)
    if problems:
        raise ConfigError(problems, str(path))
    origins: dict[str, str] = {}
    return ConfigTree(_unwrap(root, "", origins), origins, str(path))


def dump(tree: ConfigTree | Mapping[str, Any]) -> str:
    """Returns the resolved config as YAML without parents; loading it again gives the same data."""
    return to_text(tree.data if isinstance(tree, ConfigTree) else dict(tree))


def diff(a: ConfigTree | Mapping[str, Any], b: ConfigTree | Mapping[str, Any]) -> list[str]:
    """Returns the dotted keys whose values differ or exist on one side only, in the order of ``a``, then ``b``."""
    left, right = (_leaves(tree.data if isinstance(tree, ConfigTree) else tree) for tree in (a, b))
    return [key for key in left | right if left.get(key) != right.get(key)]


def join(path: str, key: str | int) -> str:
    """Returns the dotted path of ``key`` below ``path``."""
    return f"{path}.{key}" if path else str(key)


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, str] = {}
    for key, item in pairs:
        found |= _leaves(item, join(path, key))
    return found or {path: repr(value)}  # repr: True is not 1, 1 is not 1.0, nan is nan


def _unwrap(node: Node, path: str, origins: dict[str, str]) -> Any:
    origins[path] = node.origin
    if isinstance(node.value, dict):
        return {key: _unwrap(child, join(path, key), origins) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_unwrap(child, join(path, i), origins) for i, child in enumerate(node.value)]
    return node.value


def _load_file(path: Path, chain: tuple[Path, ...], asked_by: str, problems: list[str]) -> Node | None:
    """Returns the file merged onto its parents, or None if it or one of them cannot be used."""
    here = f"{asked_by}: " if asked_by else ""
    if path.resolve() in [parent.resolve() for parent in chain]:
        names = " -> ".join(str(p) for p in (*chain, path))
        problems.append(f"{here}{BASE} goes in a circle: {names}; remove one of these links")
        return None
    text = _read_text(path, here, problems)
    node = parse(text, lambda line: f"{path}:{line}", problems) if text is not None else None
    if node is None:
        return None
    if not isinstance(node.value, dict):
        got = "is empty" if node.value is None else f"holds a {type(node.value).__name__}"
        problems.append(f"{here}{path} {got}; a config is a mapping of keys to values")
        return None
    if "_BASE_" in node.value:
        problems.append(f"{node.value['_BASE_'].origin}: '_BASE_' is written '{BASE}' here")
    merged: Node | None = None
    for name in _base_names(node.value.pop(BASE, None), problems):
        base = _load_file(Path(os.path.normpath(path.parent / name.value)), (*chain, path), name.origin, problems)
        merged = base if merged is None or base is None else _merge(merged, base)
    if merged is None or not node.value:  # a file with nothing but parents does not empty them
        return merged or node
    return _merge(merged, node)


def _read_text(path: Path, here: str, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except FileNotFoundError:
        guess = nearest(path.name, (p.name for p in path.parent.glob("*.y*ml")))
        problems.append(
            f"{here}{path} does not exist" + (f"; did you mean '{path.with_name(guess)}'?" if guess else "")
        )
    except UnicodeDecodeError as error:
        problems.append(f"{here}{path} is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except OSError as error:
        problems.append(f"{here}{path} cannot be read: {error.strerror}")
    return None


def _base_names(node: Node | None, problems: list[str]) -> list[Node]:
    if node is None:
        return []
    names = node.value if isinstance(node.value, list) else [node]
    for name in names:
        if not isinstance(name.value, str):
            problems.append(f"{name.origin}: {BASE} is a path or a list of paths, got {show(_unwrap(name, '', {}))}")
    return [name for name in names if isinstance(name.value, str)]


def _merge(parent: Node, child: Node) -> Node:
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict) or not child.value:
        return child
    merged = dict(parent.value)
    origin = parent.origin if child.origin.startswith(FLAG) else child.origin  # one override does not own the mapping
    old, new = parent.value.get("type"), child.value.get("type")
    if old is not None and new is not None and old.value != new.value:
        merged, origin = _set_by_hand(parent).value, new.origin
    for key, value in child.value.items():
        merged[key] = _merge(merged[key], value) if key in merged else value
    return Node(merged, origin)


def _set_by_hand(node: Node) -> Node:
    """Returns the part of a mapping that overrides set: ``-o x.depth=3 x.type=other`` must not lose the depth."""
    kept = {}
    for key, child in node.value.items():
        inner = _set_by_hand(child) if isinstance(child.value, dict) else None
        if child.origin.startswith(FLAG) or (inner is not None and inner.value):
            kept[key] = inner or child
    return Node(kept, node.origin)


def _override(root: Node, text: str, problems: list[str]) -> Node:
    origin = FLAG + text
    name, equals, value_text = text.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        problems.append(f"{origin}: an override is written a.b.c=value, without empty parts")
        return root
    value = parse(value_text, lambda _: origin, problems)
    if value is None:
        return root
    try:
        return _set(root, keys, Node(value.value, origin), "")
    except LookupError as error:
        problems.append(f"{origin}: {error.args[0]}")
        return root


def _set(node: Node | None, keys: list[str], value: Node, path: str) -> Node:
    """Returns ``node`` with ``value`` merged in at ``keys``; makes mappings on the way (checking names comes later)."""
    if not keys:
        return value if node is None else _merge(node, value)
    if node is None or node.value is None:
        node = Node({}, value.origin)
    head, rest = keys[0], keys[1:]
    if isinstance(node.value, list):
        items = list(node.value)
        if not head.isdecimal() or int(head) >= len(items):
            allowed = f"0 to {len(items) - 1}" if items else "none, it is empty"
            raise LookupError(f"{path} is a list; got index '{head}', allowed: {allowed}")
        items[int(head)] = _set(items[int(head)], rest, value, join(path, head))
        return Node(items, node.origin)
    if not isinstance(node.value, dict):
        raise LookupError(f"{path} is {show(node.value)}, not a mapping: there is no '{head}' to set in it")
    if not rest:
        return _merge(node, Node({head: value}, node.origin))
    return Node({**node.value, head: _set(node.value.get(head), rest, value, join(path, head))}, node.origin)
