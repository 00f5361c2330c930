"""A config shown in full: defaults filled in, the origin behind every value, and what differs between two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from ppmtl import build
from ppmtl.config import ConfigTree, Part, load_config
from ppmtl.config.complete import complete
from ppmtl.config.explain import annotated, differences, explained
from ppmtl.config.settings import Settings

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yml"))


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    size: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Outer:
    head: Annotated[Callable[..., Any], Part("toyparts.heads")]
    inner: Inner = field(default_factory=Inner)
    many: dict[str, Inner] = field(default_factory=dict)
    texts: tuple[str, ...] = ()


def load(folder: Path, text: str, *overrides: str) -> ConfigTree:
    path = folder / "x.yml"
    path.write_text(text)
    return load_config(path, overrides)


@pytest.mark.usefixtures("toyparts")
def test_every_value_shows_its_line_its_override_or_that_it_is_a_default(tmp_path: Path) -> None:
    tree = load(tmp_path, "head:\n  type: upernet\n  aux: {type: linear, bias: true}\nmany: {a: {rate: 1}}\n",
                "many.a.size=[3, 4]", "inner.rate=2")  # fmt: skip
    text = explained(Outer, tree).replace(f"{tmp_path}/", "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines == [
        "head:", "type: upernet # x.yml:2", "aux:", "type: linear # x.yml:3", "bias: true # x.yml:3",
        "channels: 512 # default", "dropout: 0.1 # default",
        "many:", "a:", "rate: 1 # x.yml:4", "size: [3, 4] # -o many.a.size=[3, 4]",
        "inner:", "rate: 2 # -o inner.rate=2", "size: [1, 2] # default",
        "texts: [] # default",
    ]  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_as_shown_loads_to_the_same_run(path: Path, tmp_path: Path) -> None:
    run = build.load(str(path), ["train.accumulate=2"])
    shown = tmp_path / "shown.yml"
    shown.write_text(explained(Settings, run.tree))
    again = build.load(str(shown))
    assert again.tree.data == complete(Settings, again.tree).data == complete(Settings, run.tree).data
    assert build.missing_paths(again.settings, training=True, evaluation=True) == build.missing_paths(
        run.settings, training=True, evaluation=True
    )
    assert f"{path}:" in shown.read_text()


def test_remarks_never_end_up_inside_a_value(tmp_path: Path) -> None:
    data = {
        "a": "word " * 60,
        "b": "two\nlines",
        "c": ["x" * 90, "y # z"],
        "d": [{"e": 1}, {"e": "#"}],
        "f": {},
        "g": [[1], [2]],
    }
    path = tmp_path / "x.yml"
    path.write_text(annotated(data, lambda path: f"remark {path}"))
    assert load_config(path).data == data
    assert "# remark d.1.e" in path.read_text()


def test_two_configs_differ_by_value_by_absence_and_by_default(tmp_path: Path) -> None:
    first = load(tmp_path, "inner: {rate: 1}\nmany: {a: {}}\n")
    second = load(tmp_path, "inner: {size: [5, 6]}\n", "texts=[x]")
    lines = [line.replace(f"{tmp_path}/", "") for line in differences(Outer, first, second)]
    assert lines == [
        "inner.rate: 1 [x.yml:1] -> 0.1 [default]",
        "inner.size: [1, 2] [default] -> [5, 6] [x.yml:1]",
        "many.a.rate: 0.1 [default] -> absent",
        "many.a.size: [1, 2] [default] -> absent",
        'texts: [] [default] -> ["x"] [-o texts=[x]]',
        "many: absent -> {} [default]",
    ]
    assert differences(Outer, first, first) == []
