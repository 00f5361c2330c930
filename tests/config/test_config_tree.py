"""Config files: YAML, parents and overrides become one tree that knows where every value came from."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ppmtl.config import ConfigError, ConfigTree, load_config, nearest, stored_config


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> dict[str, Any]:
    return load_config(write(folder, "x.yml", text), overrides).data


def load_problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, "x.yml", text), overrides)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


# --- reading YAML -----------------------------------------------------------------------------------------------------


SCALARS = {
    "1e-4": 1e-4, "1E5": 1e5, "-.5": -0.5, "3.": 3.0, "-.inf": -float("inf"), "010": 10, "0x1F": 31, "0o17": 15, "-7": -7,
    "true": True, "False": False, "null": None, "~": None, "": None, "'1e-4'": "1e-4",
} | {text: text for text in ["12:30", "1:2:3.5", "1_000", "on", "off", "yes", "No", "2024-01-31", "=", "1e-4s"]}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    got = load(tmp_path, f"a: {text}\n")["a"]
    assert got == value
    assert type(got) is type(value)


def test_a_number_that_python_would_not_read_is_text(tmp_path: Path) -> None:
    assert load(tmp_path, f"a: {'9' * 5000}\n") == {"a": "9" * 5000}


def test_keys_that_yaml_1_1_takes_for_booleans_are_text(tmp_path: Path) -> None:
    assert load(tmp_path, "on: 1\nno: 2\n") == {"on": 1, "no": 2}


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_bytes("\ufeffa: 1\n".encode())
    assert load_config(path).data == {"a": 1}


def test_aliases_repeat_a_value(tmp_path: Path) -> None:
    assert load(tmp_path, "a: &a {x: [1]}\nb: *a\nc: [*a]\n") == {"a": {"x": [1]}, "b": {"x": [1]}, "c": [{"x": [1]}]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yml:3: key 'a' is given twice in one mapping (first at x.yml:1); keep one of them"),
        ("a:\n  b: {c: 1, c: 2}\n", "x.yml:2: key 'c' is given twice"),
        ("a: 1\nb: [1, 2\n", "x.yml:3, column 1: not valid YAML: while parsing a flow sequence"),
        ("a: 1\n\tb: 2\n", "x.yml:2, column 1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "x.yml:2, column 1: not valid YAML: expected a single document"),
        ("a: \x07\n", "x.yml:1: not valid YAML: unacceptable character"),
        ("a: *nobody\n", "x.yml:1, column 4: not valid YAML: found undefined alias"),
        ("a: &a [1, *a]\n", "x.yml:1: an alias (*name) refers to a mapping or list that it is part of"),
        ("1: a\n", "x.yml:1: a key must be text, got 1 (whole number); put it in quotes"),
        ("&a {? *a : 1}\n", "x.yml:1: a key must be text, got a list or mapping"),
        (
            "a.b: 1\n",
            "x.yml:1: got the key 'a.b'; write nested mappings, or put it in quotes where the dot is part of a name",
        ),
        ("'': 1\n", "x.yml:1: a key must not be empty"),
        ("a: !Coco {b: 1}\n", "x.yml:1: YAML tag '!Coco' is not understood; name a class with 'type: NAME'"),
        ("a: !!python/object/apply:os.getcwd []\n", "x.yml:1: YAML tag '!!python/object/apply:os.getcwd' is not"),
        ("a: !!python/name:os.getcwd\n", "x.yml:1: YAML tag '!!python/name:os.getcwd' is not"),
        ("a: !!int 1\n", "x.yml:1: YAML tag '!!int' is not understood"),
        ("a: {x: 1}\n<<: {y: 1}\n", "x.yml:2: '<<' is not part of YAML 1.2"),
        ("", "x.yml is empty; a config is a mapping of keys to values"),
        ("# nothing\n", "x.yml is empty"),
        ("- 1\n", "x.yml holds [1] (list); a config is a mapping"),
        ("words\n", "x.yml holds 'words' (text); a config is a mapping"),
        ("_BASE_: a.yml\n", "x.yml:1: '_BASE_' is written '_base_' here"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    problems = load_problems(tmp_path, text)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, "allinone_demo.yml", "a: 1\n")
    with pytest.raises(ConfigError, match=r"allinone_dmo\.yml does not exist; did you mean '.*allinone_demo\.yml'\?"):
        load_config(tmp_path / "allinone_dmo.yml")


def test_a_folder_and_a_file_that_is_not_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "x.yml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 3\)"):
        load_config(tmp_path / "x.yml")


# --- parents ----------------------------------------------------------------------------------------------------------


def test_parents_merge_in_order_and_the_file_itself_wins(tmp_path: Path) -> None:
    write(tmp_path, "base/root.yml", "r: 1\nl: [0]\n")  # both have it as their parent
    write(tmp_path, "base/a.yml", "_base_: root.yml\nm: {x: a, y: a, z: a}\n")
    write(tmp_path, "base/b.yml", "_base_: root.yml\nm: {y: b, z: b}\nl: [1, 2, 3]\n")
    data = load(tmp_path, "_base_: [base/a.yml, base/b.yml]\nm: {z: c}\nl: [4]\n")
    assert data == {"r": 1, "m": {"x": "a", "y": "b", "z": "c"}, "l": [4]}


def test_a_parent_is_found_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, "_base_/deep/a.yml", "x: 1\n")
    write(tmp_path, "_base_/b.yml", "_base_: deep/a.yml\ny: 2\n")
    assert load(tmp_path, "_base_: _base_/b.yml\n") == {"x": 1, "y": 2}


def test_a_changed_type_replaces_the_parents_mapping_and_an_equal_or_absent_one_merges(tmp_path: Path) -> None:
    write(tmp_path, "a.yml", "h: {seg: {type: upernet, c: 1}, det: {type: yolo, c: 2}, cls: {type: linear, c: 3}}\n")
    data = load(tmp_path, "_base_: a.yml\nh: {seg: {type: setr, d: 4}, det: {type: yolo, d: 5}, cls: {d: 6}}\n")
    assert data["h"] == {
        "seg": {"type": "setr", "d": 4},
        "det": {"type": "yolo", "c": 2, "d": 5},
        "cls": {"type": "linear", "c": 3, "d": 6},
    }


def test_null_stays_null_and_an_empty_mapping_empties(tmp_path: Path) -> None:
    write(tmp_path, "a.yml", "clip: 1.0\nweights: {seg: 2}\nm: {x: 1}\n")
    data = load(tmp_path, "_base_: a.yml\nclip: null\nweights: {}\nm: {x: }\n")
    assert data == {"clip": None, "weights": {}, "m": {"x": None}}


def test_a_circle_of_parents_is_refused_with_the_chain(tmp_path: Path) -> None:
    write(tmp_path, "a.yml", "_base_: b.yml\n")
    write(tmp_path, "b.yml", "\n_base_: sub/../x.yml\n")
    (tmp_path / "sub").mkdir()
    (problem,) = load_problems(tmp_path, "_base_: a.yml\n")
    assert problem == "b.yml:2: _base_ goes in a circle: x.yml -> a.yml -> b.yml -> x.yml; remove one of these links"


def test_problems_of_all_files_and_overrides_come_together(tmp_path: Path) -> None:
    write(tmp_path, "a.yml", "x: 1\nx: 2\n")
    problems = load_problems(tmp_path, "_base_: [a.yml, missing.yml, 5]\nx: 1\n", "x", "l=[1")
    assert problems[0].startswith("a.yml:2: key 'x' is given twice")
    assert problems[1].startswith("x.yml:1: missing.yml does not exist; _base_ starts from the folder of the file that")
    assert problems[2] == "x.yml:1: _base_ is a path or a list of paths, got 5 (whole number)"
    assert problems[3].startswith("-o x: an override is written a.b.c=value")
    assert problems[4].startswith("-o l=[1, column 3: not valid YAML")
    assert len(problems) == 5


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides_are_typed_like_yaml_and_none_is_lost(tmp_path: Path) -> None:
    data = load(
        tmp_path, "a: {b: {c: 0, d: 0}}\n",
        "a.b.c=1e-3", "a.b.d=[1, {x: on}]", "weights=out/best=1", "a.e={f: true}", "t=1 2", "n=null", "m=",
    )  # fmt: skip
    assert data == {
        "a": {"b": {"c": 1e-3, "d": [1, {"x": "on"}]}, "e": {"f": True}},
        "weights": "out/best=1", "t": "1 2", "n": None, "m": None,
    }  # fmt: skip


def test_a_later_override_wins(tmp_path: Path) -> None:
    assert load(tmp_path, "a: 1\n", "a=2", "a=3") == {"a": 3}
    assert load(tmp_path, "a: {b: 1}\n", "a.b=2", "a=3") == {"a": 3}


def test_an_override_reaches_into_lists_by_index(tmp_path: Path) -> None:
    text = "transforms: [{type: crop, size: [1, 1]}, {type: flip, p: 1}]\n"
    data = load(tmp_path, text, "transforms.0.size=[1,2]", "transforms.1.type=blur", "transforms.0.size.0=7")
    assert data["transforms"] == [{"type": "crop", "size": [7, 2]}, {"type": "blur"}]


def test_overriding_a_type_replaces_the_mapping_but_keeps_what_overrides_set(tmp_path: Path) -> None:
    text = "h: {type: upernet, c: 1, n: {k: 1, l: 2}}\n"
    for order in (("h.type=setr", "h.depth=3", "h.n.k=5"), ("h.depth=3", "h.n.k=5", "h.type=setr")):
        assert load(tmp_path, text, *order) == {"h": {"type": "setr", "depth": 3, "n": {"k": 5}}}, order


def test_an_override_makes_the_mappings_on_its_way_also_through_null(tmp_path: Path) -> None:
    assert load(tmp_path, "a: null\n", "a.b.c=1", "d.e=2") == {"a": {"b": {"c": 1}}, "d": {"e": 2}}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a.b", "an override is written a.b.c=value"),
        ("=1", "an override is written a.b.c=value"),
        ("a..b=1", "an override is written a.b.c=value"),
        (".a=1", "an override is written a.b.c=value"),
        ("s.x=1", "s is 42 (whole number), not a mapping: there is no 'x' to set in it"),
        ("l.2=1", "l is a list; got index '2', allowed: 0 to 1"),
        ("l.-1=1", "l is a list; got index '-1', allowed: 0 to 1"),
        ("l.x.y=1", "l is a list; got index 'x', allowed: 0 to 1"),
        ("e.0=1", "e is a list; got index '0', allowed: none, it is empty"),
        ("s={a: 1, a: 2}", "key 'a' is given twice"),
    ],
)
def test_a_malformed_override_is_reported(tmp_path: Path, override: str, problem: str) -> None:
    (got,) = load_problems(tmp_path, "s: 42\nl: [1, 2]\ne: []\n", override)
    assert got.startswith(f"-o {override}: {problem}")


# --- where values come from -------------------------------------------------------------------------------------------


def test_every_value_knows_the_line_or_override_that_set_it(tmp_path: Path) -> None:
    base = write(tmp_path, "a.yml", "m:\n  x: 1\n  y:\n    2\nl:\n  - 1\n  - p: 3\n  - gone\nk: 1\n")
    other = write(tmp_path, "b.yml", "\nk: 2\n")
    child = write(tmp_path, "x.yml", "_base_: [a.yml, b.yml]\nm:\n  z: 1\n")
    origins = load_config(child, ["m.x=5", "l=[1, {p: 3}]", "l.1.p=4", "n.o=1"]).origins
    assert origins == {
        "": f"{child}:1", "m": f"{child}:2", "m.x": "-o m.x=5", "m.y": f"{base}:3", "m.z": f"{child}:3",
        "l": "-o l=[1, {p: 3}]", "l.0": "-o l=[1, {p: 3}]", "l.1": "-o l=[1, {p: 3}]", "l.1.p": "-o l.1.p=4",
        "k": f"{other}:2", "n": "-o n.o=1", "n.o": "-o n.o=1",
    }  # fmt: skip


def test_a_mapping_belongs_to_who_wrote_it_last_or_chose_its_type(tmp_path: Path) -> None:
    path = write(tmp_path, "x.yml", "h: {type: a, c: 1}\n")
    assert load_config(path, ["h.c=2"]).origins["h"] == f"{path}:1"
    assert load_config(path, ["h={c: 2}"]).origins["h"] == "-o h={c: 2}"
    assert load_config(path, ["h.type=b"]).origins["h"] == "-o h.type=b"


# --- changes after loading --------------------------------------------------------------------------------------------


def test_with_values_changes_a_tree_as_overrides_do_and_says_who(tmp_path: Path) -> None:
    tree = load_config(
        write(tmp_path, "x.yml", "train: {epochs: 9, amp: {level: O1}}\nl: [1, 2]\nh: {type: a, c: 1}\n")
    )
    values = {"train.epochs": 1, "train.amp": None, "l.1": 5, "h.d": 2, "h.type": "b", "new.key": (1, {"x": 2e-4})}
    changed = tree.with_values(values, origin="--fast_dev_run")
    assert changed.data == {
        "train": {"epochs": 1, "amp": None}, "l": [1, 5], "h": {"type": "b", "d": 2}, "new": {"key": [1, {"x": 2e-4}]},
    }  # fmt: skip
    assert changed.origins["train.epochs"] == changed.origins["new.key.1.x"] == "--fast_dev_run"
    assert changed.origins["train"] == tree.origins["train"]
    assert "train.amp.level" not in changed.origins
    assert tree.data["train"] == {"epochs": 9, "amp": {"level": "O1"}}
    assert load_config(write(tmp_path, "y.yml", changed.dump())).data == changed.data
    with pytest.raises(ConfigError, match=r"--fast_dev_run: l is a list; got index '2', allowed: 0 to 1"):
        tree.with_values({"l.2": 1}, origin="--fast_dev_run")


def test_without_removes_entries_and_refuses_unknown_ones(tmp_path: Path) -> None:
    tree = load_config(write(tmp_path, "x.yml", "s: {cls: {a: 1}, cls2: 1, seg: 2}\nt: 1\n"))
    left = tree.without(["s.cls", "t"])
    assert left.data == {"s": {"cls2": 1, "seg": 2}}
    assert sorted(left.origins) == ["", "s", "s.cls2", "s.seg"]
    assert tree.data["s"]["cls"] == {"a": 1}
    with pytest.raises(KeyError, match="det"):
        tree.without(["s.det"])


# --- dump, nearest ----------------------------------------------------------------------------------------------------

TRICKY = ["1e-4", "on", "12:30", "null", "", "010", "0o7", "~", "a: b", "#", "line\nbreak", "ä", "2024-01-31", "1_000"]
TRICKY += ["<<", "=", "0x1F", ".inf", "!x", "*x"]


def test_a_dumped_tree_loads_again_to_the_same_values(tmp_path: Path) -> None:
    generator = random.Random(0)
    floats = [1e-4, 1e22, 1.0, -0.0, float("inf"), float("nan")]
    floats += [generator.uniform(-1, 1) * 10 ** generator.randint(-12, 12) for _ in range(50)]
    keyed = {text: {"v": text} for text in TRICKY if text not in ("", ".inf")}
    data = {"texts": TRICKY, "floats": floats, "keyed": keyed, "e": {}, "l": [], "n": [None, True, 3]}
    text = ConfigTree(data, {}, "").dump()
    again = load_config(write(tmp_path, "x.yml", text))
    assert repr(again.data) == repr(data)
    assert again.dump() == text


def test_a_dump_has_one_key_per_line_and_no_aliases() -> None:
    shared = {"b": [1, 2]}
    assert ConfigTree({"x": shared, "y": shared}, {}, "").dump() == "x:\n  b: [1, 2]\ny:\n  b: [1, 2]\n"


def test_nearest_finds_typing_mistakes_and_beginnings_only() -> None:
    names = ["batch_size", "depth_multiplier", "epochs"]
    assert nearest("batchsize", names) == "batch_size"
    assert nearest("Batch-Size", names) == "batch_size"
    assert nearest("depth", names) == "depth_multiplier"
    assert nearest("qq", names) is None
    assert nearest("x", []) is None


def test_an_error_survives_pickling_and_stays_plain_without_a_file() -> None:
    error = ConfigError(["a", "b"], "x.yml")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems, again.file) == (str(error), ["a", "b"], "x.yml")
    assert str(ConfigError(["only this"])) == "only this"
    assert str(ConfigError(["only this"], "x.yml")) == "1 problem in x.yml:\n  - only this"


def test_importing_config_imports_neither_numpy_nor_paddle() -> None:
    code = "import ppmtl.config, sys; print(sorted({'numpy', 'paddle', 'cv2'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_stored_config_takes_defaults_and_overrides_and_says_where_it_stands():
    data = {"save_dir": "old", "device": "gpu:3", "model": {"type": "x"}}
    tree = stored_config(data, "run/state.json", {"save_dir": "run", "device": "auto"}, ["device=cpu", "seed=3"])
    assert tree.data == {"save_dir": "run", "device": "cpu", "model": {"type": "x"}, "seed": 3}
    assert tree.origins["model.type"] == "run/state.json"
    assert tree.file == "run/state.json"


def test_a_stored_config_cannot_choose_code_to_run():
    data = {"model": {"backbone": {"type": "subprocess.Popen", "args": ["sh"]}}}
    with pytest.raises(ConfigError, match=r"model\.backbone\.type: subprocess\.Popen is code outside the project"):
        stored_config(data, "state.json", {})
