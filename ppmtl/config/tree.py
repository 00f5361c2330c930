"""Config files and command-line overrides, merged to one tree that knows where every value came from.

How files combine (``_base_:`` names one parent or a list, relative to the file that names it):
  * mappings merge key by key, later parents win over earlier ones, the file itself over its parents;
  * a mapping whose ``type`` changes replaces the parent's mapping, since its other keys belong to another class;
  * lists are replaced as a whole;
  * an empty mapping ``{}`` empties the parent's; ``null`` sets a value to null, and removes an entry from a mapping of
    named things: ``heads: {det: null}`` drops the head "det" that a parent defined.
An override ``-o a.b=1`` acts like one more child file; list items are reached by index (``transforms.0.size=[1, 2]``).
"""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.config.errors import ConfigError, join, nearest, show
from ppmtl.config.yaml_file import parse, to_text

BASE = "_base_"


@dataclass(frozen=True)
class ConfigTree:
    """A resolved, not yet checked config."""

    data: dict[str, Any]  # nested dicts, lists and scalars, as if written in one file
    origins: dict[str, str]  # {dotted path of anything in it: who set it, "configs/x.yml:12" or "-o a.b=1"}
    file: str  # the config that was asked for

    def dump(self) -> str:
        """The resolved config as YAML without parents; loading it again gives the same data."""
        return to_text(self.data)

    def with_values(self, values: Mapping[str, Any], origin: str) -> ConfigTree:
        """This tree with {dotted key: value} changed as overrides change them; ``origin`` ("--tta") is for messages.

        Raises:
            ConfigError: if a key leads through a scalar, or to an item that a list does not have.
        """
        typed = {key: parse(to_text(value), lambda _: origin, [])[0] for key, value in values.items()}  # no tuples
        return _apply(self, [(key, value, origin) for key, value in typed.items()], [])

    def without(self, keys: Collection[str]) -> ConfigTree:
        """This tree without the mapping entries at these dotted keys, which must exist."""
        data = copy.deepcopy(self.data)
        for key in keys:
            *parents, last = key.split(".")
            del functools.reduce(operator.getitem, parents, data)[last]
        return _pruned(data, self.origins, self.file)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ConfigTree:
    """The config at ``path`` merged with its parents and overridden: "a.b.c=value" each, typed like YAML, the last wins.

    Raises:
        ConfigError: with every unreadable file, syntax mistake and malformed override at once.
    """
    problems: list[str] = []
    tree = _load_file(_given_or_packaged(Path(path)), (), "", problems) or ConfigTree({}, {}, str(path))
    return _overridden(tree, overrides, problems)


def stored_config(
    data: dict[str, Any], file: str, defaults: Mapping[str, Any], overrides: Sequence[str] = ()
) -> ConfigTree:
    """A config that stands in another document, such as a checkpoint, overridden as in ``load_config``.

    Args:
        data: the whole config, without ``_base_``.
        file: the document, for messages.
        defaults: {dotted key: value} that replace those of ``data``; ``overrides`` win over them.
        overrides: "a.b.c=value" each.

    Raises:
        ConfigError: with every malformed override, or for the first ``type`` with a dot: a document that came from elsewhere
            must not choose code to run.
    """
    for path, value in nodes(data):
        if path.rpartition(".")[2] == "type" and "." in str(value):
            problem = (
                f"{path}: {value} is code outside the project, which this file must not choose; give a config: -c FILE"
            )
            raise ConfigError([problem], file)
    tree = ConfigTree(data, {path: file for path, _ in nodes(data)}, file)
    return _overridden(tree.with_values(defaults, file), overrides, [])


def _overridden(tree: ConfigTree, overrides: Sequence[str], problems: list[str]) -> ConfigTree:
    changes = [change for override in overrides if (change := _change(override, problems))]
    return _apply(tree, changes, problems)


def packaged_configs() -> Path:
    """The folder of the configs that ppmtl brings: configs/ of the source tree, ppmtl/configs where it is installed."""
    package = Path(__file__).resolve().parents[1]
    return installed if (installed := package / "configs").is_dir() else package.parent / "configs"


def _given_or_packaged(path: Path) -> Path:
    """``path``; where "x.yml" or "configs/x.yml" is no file, the config of that name that ppmtl brings."""
    packaged = packaged_configs() / path.name
    return packaged if not path.exists() and str(path.parent) in (".", "configs") and packaged.is_file() else path


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and value of everything in a tree, parents first."""
    yield path, value
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from nodes(item, join(path, key))


def _pruned(data: dict[str, Any], origins: Mapping[str, str], file: str) -> ConfigTree:
    """A tree without the origins of values that are gone."""
    return ConfigTree(data, {path: origins[path] for path, _ in nodes(data) if path in origins}, file)


def _load_file(path: Path, chain: tuple[Path, ...], asked_by: str, problems: list[str]) -> ConfigTree | None:
    """The file merged onto its parents, or None if it or one of them cannot be used."""
    here = f"{asked_by}: " if asked_by else ""
    if path.resolve() in [parent.resolve() for parent in chain]:
        names = " -> ".join(str(p) for p in (*chain, path))
        problems.append(f"{here}{BASE} goes in a circle: {names}; remove one of these links")
        return None
    before, text = len(problems), _read_text(path, here, problems)
    data, origins = parse(text or "", lambda line: f"{path}:{line}", problems)
    if len(problems) > before:
        return None
    if not isinstance(data, dict):
        got = "is empty" if data is None else f"holds {show(data)}"
        problems.append(f"{here}{path} {got}; a config is a mapping of keys to values")
        return None
    if "_BASE_" in data:
        problems.append(f"{origins['_BASE_']}: '_BASE_' is written '{BASE}' here")
    merged: dict[str, Any] = {}
    inherited: dict[str, str] = {}
    names = data.pop(BASE, [])
    for i, name in enumerate(names if isinstance(names, list) else [names]):
        origin = origins.get(f"{BASE}.{i}", origins[BASE])
        if not isinstance(name, str):
            problems.append(f"{origin}: {BASE} is a path or a list of paths, got {show(name)}")
        elif base := _load_file(Path(os.path.normpath(path.parent / name)), (*chain, path), origin, problems):
            merged, inherited = _merge(merged, base.data), inherited | base.origins
    return ConfigTree(_merge(merged, data) if data else merged, inherited | origins, str(path))


def _read_text(path: Path, here: str, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except FileNotFoundError:
        others = (p.name for p in path.parent.glob("*.y*ml") if not here.startswith(f"{p}:"))  # not the one that asks
        guess = nearest(path.name, others)
        hint = f"; did you mean '{path.with_name(guess)}'?" if guess else _base_hint(path) if here else ""
        if not hint and (guess := nearest(path.name, (p.name for p in packaged_configs().glob("*.yml")))):
            hint = f"; did you mean '{guess}', which ppmtl brings?"
        problems.append(f"{here}{path} does not exist{hint}")
    except UnicodeDecodeError as error:
        problems.append(f"{here}{path} is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except OSError as error:
        problems.append(f"{here}{path} cannot be read: {error.strerror}")
    return None


def _base_hint(path: Path) -> str:
    """How a config that was copied without its parent ``path`` gets it back."""
    shipped = packaged_configs() / path.name
    way = f"write the way from there to the parent (those that come with ppmtl are in {shipped.parent})"
    if shipped.is_file():
        way = f"write {BASE}: {shipped}, which is the one that comes with ppmtl"
    return (
        f"; {BASE} starts from the folder of the file that names it: {way}, or copy the parent too. To get one file without "
        "parents: python tools/config.py show -c ORIGINAL > COPY"
    )


def _merge(parent: Any, child: Any) -> Any:
    """The child over the parent."""
    if not isinstance(parent, dict) or not isinstance(child, dict) or not child:
        return child
    if "type" in parent and child.get("type", parent["type"]) != parent["type"]:
        return child
    return parent | {key: _merge(parent[key], value) if key in parent else value for key, value in child.items()}


def _change(override: str, problems: list[str]) -> tuple[str, Any, str] | None:
    origin = f"-o {override}"
    key, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        problems.append(f"{origin}: an override is written a.b.c=value, without empty parts")
        return None
    return key, parse(text, lambda _: origin, problems)[0], origin


def _apply(tree: ConfigTree, changes: Sequence[tuple[str, Any, str]], problems: list[str]) -> ConfigTree:
    """The tree after ``changes``: (dotted key, value, origin) each; raises with their problems and those so far."""
    data, origins = tree.data, dict(tree.origins)
    # Twice, so that x.depth=3 x.type=other does not lose the depth
    for is_again, (dotted, value, origin) in itertools.product((False, True), changes):
        keys = [key.strip() for key in dotted.split(".")]
        try:
            data = _set(data, keys, value, "")
        except LookupError as error:
            problems += [] if is_again else [f"{origin}: {error.args[0]}"]
        for end in range(1, len(keys)):  # mappings that are made on the way
            origins.setdefault(".".join(keys[:end]), origin)
        if keys[-1] == "type":  # decides what the keys beside it mean
            origins[".".join(keys[:-1])] = origin
        origins |= {path: origin for path, _ in nodes(value, ".".join(keys))}
    if problems:
        raise ConfigError(problems, tree.file)
    return _pruned(data, origins, tree.file)


def _set(node: Any, keys: list[str], value: Any, path: str) -> Any:
    """``node`` with ``value`` merged in at ``keys``; makes mappings on the way (checking names comes later)."""
    if not keys:
        return _merge(node, value)
    head, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not head.isdecimal() or int(head) >= len(node):
            allowed = f"0 to {len(node) - 1}" if node else "none, it is empty"
            raise LookupError(f"{path} is a list; got index '{head}', allowed: {allowed}")
        index = int(head)
        return [*node[:index], _set(node[index], rest, value, join(path, head)), *node[index + 1 :]]
    node = {} if node is None else node
    if not isinstance(node, dict):
        raise LookupError(f"{path} is {show(node)}, not a mapping: there is no '{head}' to set in it")
    return _merge(node, {head: _set(node.get(head), rest, value, join(path, head))})
