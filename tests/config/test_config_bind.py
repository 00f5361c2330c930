"""Config trees: checked against type hints, with all problems in one error."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval

from ppmtl.config import ConfigError, ConfigTree, Part, check, load_config


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


Head = Annotated[Callable[..., Any], Part("toyparts.heads")]
Op = Annotated[Callable[..., Any], Part("toyparts.ops")]


@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Gt(0)] = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


@dataclass(frozen=True)
class Outer:
    name: str
    heads: dict[str, Head] = field(default_factory=dict)
    ops: tuple[Op, ...] = ()
    inner: Inner = field(default_factory=Inner)
    groups: dict[str, Inner] = field(default_factory=dict)
    batch_size: Annotated[int, Ge(1)] = 1


def outer(folder: Path, text: str, *overrides: str) -> Outer:
    return check(Outer, load_config(write(folder, "x.yml", text), overrides))


def outer_problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        outer(folder, text, *overrides)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


# --- checking one value -----------------------------------------------------------------------------------------------


def tree(data: dict[str, Any]) -> ConfigTree:
    return ConfigTree(data, {}, "")


def convert(hint: Any, value: Any) -> tuple[Any, list[str]]:
    try:
        return check(
            make_dataclass("P", [("p", make_dataclass("K", [("k", hint)]))]), tree({"p": {"k": value}})
        ).p.k, []
    except ConfigError as error:
        return None, error.problems


ACCEPTED = [
    (int, 3, 3),
    (float, 3, 3.0),
    (float, 1e-8, 1e-8),
    (bool, True, True),
    (str, "on", "on"),
    (Path, "a/b", Path("a/b")),
    (Path | None, None, None),
    (Literal["a", 1], 1, 1),
    (Annotated[int, Ge(1)] | None, 1, 1),
    (str | int, 5, 5),
    (str | int | None, "5 epochs", "5 epochs"),
    (tuple[int, int], [1, 2], (1, 2)),
    (tuple[float, ...], [1, 2.5], (1.0, 2.5)),
    (tuple[float, ...], [], ()),
    (list[str], ["a"], ["a"]),
    (Sequence[int], [1], [1]),
    (str | tuple[str, ...] | None, ["a", "b"], ("a", "b")),
    (str | tuple[str, ...] | None, "a", "a"),
    (tuple[int, int] | tuple[int, int, int], [1, 2, 3], (1, 2, 3)),
    (dict[str, float], {"a": 1}, {"a": 1.0}),
    (dict[str, tuple[int, ...]], {"a": [1]}, {"a": (1,)}),
    (dict[str, int], {"a": 1, "b": None}, {"a": 1}),
    (dict[str, int | None], {"b": None}, {"b": None}),
    (tuple[tuple[int, int], ...], [[1, 2], [3, 4]], ((1, 2), (3, 4))),
    (Any, {"a": [1]}, {"a": [1]}),
    (dict, {"a": 1}, {"a": 1}),
    (list, [1, "a"], [1, "a"]),
]


@pytest.mark.parametrize(("hint", "value", "expected"), ACCEPTED)
def test_a_fitting_value_is_taken(hint: Any, value: Any, expected: Any) -> None:
    got, problems = convert(hint, value)
    assert problems == []
    assert got == expected
    assert type(got) is type(expected)


REFUSED = [
    (int, "1", "p.k: got '1' (text); allowed: a whole number"),
    (int, True, "p.k: got true; allowed: a whole number"),
    (int, 1.0, "p.k: got 1.0 (number); allowed: a whole number"),
    (int, None, "p.k: got null; allowed: a whole number"),
    (int, [1], "p.k: got [1] (list); allowed: a whole number"),
    (float, "1e-4", "p.k: got '1e-4' (text); allowed: a number"),
    (float, False, "p.k: got false; allowed: a number"),
    (bool, "yes", "p.k: got 'yes' (text); allowed: true or false"),
    (bool, 1, "p.k: got 1 (whole number); allowed: true or false"),
    (str, 5, "p.k: got 5 (whole number); allowed: text"),
    (Path, 5, "p.k: got 5 (whole number); allowed: a path"),
    (Annotated[int, Ge(1)], 0, "p.k: got 0 (whole number); allowed: a whole number >= 1"),
    (Annotated[float, Interval(gt=0, le=1)] | None, 2,
     "p.k: got 2 (whole number); allowed: a number > 0 and <= 1, or null"),
    (Literal["linear", "nearest"], "linaer",
     "p.k: got 'linaer' (text); allowed: 'linear' or 'nearest'; did you mean 'linear'?"),
    (Literal[1, 2], True, "p.k: got true; allowed: 1 or 2"),
    (str | int, 5.5, "p.k: got 5.5 (number); allowed: text, or a whole number"),
    (tuple[int, int], [1], "p.k: got [1] (list); allowed: a list of 2, each a whole number"),
    (tuple[int, str], 1, "p.k: got 1 (whole number); allowed: a list of 2, a whole number, text"),
    (tuple[int, ...], [1, "x"], "p.k.1: got 'x' (text); allowed: a whole number"),
    (list[int], "abc", "p.k: got 'abc' (text); allowed: a list, each a whole number"),
    (dict[str, int], [1], "p.k: got [1] (list); allowed: a mapping, each value a whole number"),
    (dict[str, Annotated[float, Gt(0)]], {"a": 0}, "p.k.a: got 0 (whole number); allowed: a number > 0"),
    (Annotated[float, Gt(7.0)], 7, "p.k: got 7 (whole number); allowed: a number > 7"),  # typing takes Gt(7) for the same
    (str | tuple[str, ...], ["a", 5], "p.k.1: got 5 (whole number); allowed: text"),
    (Inner | None, {"low": 2}, "p.k: low 2.0 is above high 1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "message"), REFUSED)
def test_an_unfitting_value_is_reported_with_its_path_and_what_is_allowed(hint: Any, value: Any, message: str) -> None:
    assert convert(hint, value)[1] == [message]


# --- checking the arguments of a callable -----------------------------------------------------------------------------


class Reader:
    def __init__(self, root: str, *, split: Literal["train", "val"], limit: int | None = None, **more: int) -> None:
        self.root, self.split, self.limit, self.more = root, split, limit, more


@dataclass
class Open:
    det: Annotated[Callable[..., Any], Part("toyparts.heads")]


def bound(name: str, **node: Any) -> functools.partial[Any]:
    return check(Open, tree({"det": {"type": f"{__name__}.{name}", **node}})).det


def problems_of(name: str, **node: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        bound(name, **node)
    return caught.value.problems


def test_a_part_is_a_partial_that_waits_for_the_positional_arguments() -> None:
    partial = bound("Reader", split="val")
    assert (partial.func.__name__, partial.keywords) == ("Reader", {"split": "val"})
    assert partial("here").root == "here"


def test_all_problems_of_one_mapping_are_reported_at_once() -> None:
    assert problems_of("Reader", root="x", limits=1, more=1) == [
        "det.root: 'root' is supplied by the program and cannot be set; allowed: split, limit",
        "det.limits: unknown key 'limits'; did you mean 'limit'? allowed: split, limit",
        "det.more: unknown key 'more'; allowed: split, limit",
        "det.split: missing; needs 'train' or 'val'",
    ]


@dataclass
class Meter:
    names: list[str]
    _: KW_ONLY
    threshold: Annotated[float, Ge(0)] = 0.5


@dataclass
class RankMeter(Meter):
    size: int
    _: KW_ONLY
    top: int


def test_a_dataclass_with_keyword_only_fields_gets_the_others_from_the_program() -> None:
    assert bound("RankMeter", top=3, threshold=0)(["a"], 2) == RankMeter(["a"], 2, threshold=0.0, top=3)
    assert problems_of("RankMeter", names=[], size=1) == [
        "det.names: 'names' is supplied by the program and cannot be set; allowed: threshold, top",
        "det.size: 'size' is supplied by the program and cannot be set; allowed: threshold, top",
        "det.top: missing; needs a whole number",
    ]


class Nothing: ...


def test_a_class_without_parameters_allows_no_keys() -> None:
    assert problems_of("Nothing", a=1) == ["det.a: unknown key 'a'; allowed: none"]


def unreadable(*, a: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821


def test_hints_that_cannot_be_resolved_are_a_problem_and_not_a_traceback() -> None:
    (problem,) = problems_of("unreadable", a=1)
    assert "cannot read the parameters of" in problem
    assert "name 'Missing' is not defined" in problem


# --- checking a whole config ------------------------------------------------------------------------------------------


def test_settings_are_filled_and_defaults_kept(tmp_path: Path) -> None:
    got = outer(tmp_path, "name: x\ninner: {rate: 1e-3}\ngroups: {g: {betas: [1, 0]}}\n", "batch_size=4")
    assert got == Outer("x", inner=Inner(rate=1e-3), groups={"g": Inner(betas=(1.0, 0.0))}, batch_size=4)


def test_all_problems_of_a_config_come_in_one_message(tmp_path: Path) -> None:
    text = "inner:\n  rat: 1\n  rate: 0\ngroups:\n  g: {low: 2}\n  h: 5\n"
    with pytest.raises(ConfigError) as caught:
        outer(tmp_path, text, "batchsize=3", "inner.betas=[1]", "batch_size=true", "innr.rate=1")
    keys = "allowed: name, heads, ops, inner, groups, batch_size"
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        "9 problems in x.yml:",
        "  - inner.rat (x.yml:2): unknown key 'rat'; did you mean 'rate'? allowed: rate, betas, low, high",
        "  - inner.rate (x.yml:3): got 0 (whole number); allowed: a number > 0",
        "  - inner.betas (-o inner.betas=[1]): got [1] (list); allowed: a list of 2, each a number",
        "  - groups.g (x.yml:5): low 2.0 is above high 1.0",
        "  - groups.h (x.yml:6): got 5 (whole number); allowed: a mapping with rate, betas, low, high",
        f"  - batchsize (-o batchsize=3): unknown key 'batchsize'; did you mean 'batch_size'? {keys}",
        "  - batch_size (-o batch_size=true): got true; allowed: a whole number >= 1",
        f"  - innr (-o innr.rate=1): unknown key 'innr'; did you mean 'inner'? {keys}",
        "  - name (x.yml:1): missing; needs text",
    ]  # fmt: skip


@pytest.mark.usefixtures("toyparts")
def test_parts_in_a_config_become_partials_at_any_depth(tmp_path: Path) -> None:
    text = """
    name: x
    heads:
      seg: {type: upernet, dropout: 0, aux: {type: linear, bias: false}}
      cls: {type: toyparts.heads.linear.Linear, bias: true}
      gone: null
    ops: [{type: random_crop, size: [3, 4]}, {type: flip}]
    """
    got = outer(tmp_path, text)
    seg = got.heads["seg"]([1, 2])
    assert (seg.in_specs, seg.channels, seg.dropout, seg.aux.keywords) == ([1, 2], 512, 0.0, {"bias": False})
    assert list(got.heads) == ["seg", "cls"]
    assert [op().__class__.__name__ for op in got.ops] == ["RandomCrop", "Flip"]
    assert got.ops[0]().size == (3, 4)


@pytest.mark.usefixtures("toyparts")
def test_problems_inside_parts_carry_the_whole_path(tmp_path: Path) -> None:
    text = """\
    name: x
    heads:
      a: upernet
      b: {channels: 3}
      c: {type: 5}
      d:
        type: upernet
        in_specs: [1]
        chanels: 3
        channels: 0
        aux:
          type: liner
      e: {type: linear}
      f: null
    ops:
      - {type: flip}
      - {type: random_crop, size: [3, x]}
    """
    names = "broken, csp_pan, linear, upernet"
    write_type = f"write type: NAME and its settings beside it; allowed names: {names}"
    keys = "allowed: channels, dropout, aux"
    assert outer_problems(tmp_path, text) == [
        f"heads.a (x.yml:3): got 'upernet' (text), not a mapping with 'type'; {write_type}",
        f"heads.b (x.yml:4): 'type' is missing; {write_type}",
        "heads.c.type (x.yml:5): got 5 (whole number); allowed: text",
        f"heads.d.in_specs (x.yml:8): 'in_specs' is supplied by the program and cannot be set; {keys}",
        f"heads.d.chanels (x.yml:9): unknown key 'chanels'; did you mean 'channels'? {keys}",
        "heads.d.channels (x.yml:10): got 0 (whole number); allowed: a whole number >= 1",
        "heads.d.aux.type (x.yml:12): unknown type 'liner'; did you mean 'linear'? "
        f"allowed: {names}, or a dotted path my_package.module.Class",
        "heads.e.bias (x.yml:13): missing; needs true or false",
        "ops.1.size.1 (x.yml:17): got 'x' (text); allowed: a whole number",
    ]  # fmt: skip


@dataclass(frozen=True)
class Place:
    part: Callable[..., Any]
    answers: tuple[str, ...] = ()
    weight: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if len(self.answers) > 2:
            raise ValueError("at most two answers")


@dataclass(frozen=True)
class Places:
    heads: dict[str, Annotated[Place, Part("toyparts.heads")]]


@pytest.mark.usefixtures("toyparts")
def test_a_place_takes_its_own_settings_and_leaves_the_others_to_the_part(tmp_path: Path) -> None:
    text = "heads:\n  seg: {type: upernet, answers: [a, b], channels: 3}\n  cls: {type: linear, bias: true}\n"
    heads = check(Places, load_config(write(tmp_path, "x.yml", text))).heads
    assert (heads["seg"].answers, heads["seg"].part.keywords) == (("a", "b"), {"channels": 3})
    assert (heads["cls"].answers, heads["cls"].part.keywords) == ((), {"bias": True})


@pytest.mark.usefixtures("toyparts")
def test_problems_of_a_place_and_of_its_part_come_together(tmp_path: Path) -> None:
    text = """\
    heads:
      a: {type: upernet, answer: [a], channels: 0, weight: 0}
      b: {type: upernet, part: x}
      c: {type: upernet, answers: [a, b, c]}
      d: {type: linear}
    """
    with pytest.raises(ConfigError) as caught:
        check(Places, load_config(write(tmp_path, "x.yml", text)))
    keys = "allowed: channels, dropout, aux, answers, weight"
    assert [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        f"heads.a.answer (x.yml:2): unknown key 'answer'; did you mean 'answers'? {keys}",
        "heads.a.channels (x.yml:2): got 0 (whole number); allowed: a whole number >= 1",
        "heads.a.weight (x.yml:2): got 0 (whole number); allowed: a number > 0",
        f"heads.b.part (x.yml:3): unknown key 'part'; {keys}",
        "heads.c (x.yml:4): at most two answers",
        "heads.d.bias (x.yml:5): missing; needs true or false",
    ]  # fmt: skip
