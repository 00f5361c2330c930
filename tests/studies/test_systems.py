"""Table 2 with both systems: what is run, what is read back, who wins. Training and evaluation are stubs here."""

import argparse
from pathlib import Path

import pytest

from ppmtl.studies import systems
from ppmtl.studies.systems import Cell, System, as_large, compare_systems

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ANY_DATA = ["tasks.cls.classes.names=null", "tasks.det.classes.names=null"]
SCORES = {"allinone_demo": (0.5, 0.8, 0.6), "baseline_demo": (0.3, 0.9, 0.1)}


def arguments(**changed):
    given = {"config": str(CONFIGS / "allinone_demo.yml"), "against": str(CONFIGS / "baseline_demo.yml"), "nprocs": 1,
             "overrides": [ANY_DATA], "device": None, "minutes": 2.0, "seeds": [1, 2], "equal": ["minutes"], "limit": None,
             "print": False}  # fmt: skip
    return argparse.Namespace(**({"tasks": None, "seed": None} | given | changed))


@pytest.fixture
def ran(monkeypatch):
    """The runs that were made: (folder, seed, steps)."""
    runs = []

    def train(_given, folder, _tasks, seed, steps, _pace):
        folder.mkdir(parents=True, exist_ok=True)
        runs.append((folder.name, seed, steps))
        return 0.25 * steps

    def evaluate(_given, folder, tasks):
        seed = int(folder.name[-1])
        values = SCORES[folder.name.rpartition("_")[0]]
        return {t: {"primary": "m", "m": v + 0.01 * seed} for t, v in zip(tasks, values, strict=True)}

    monkeypatch.setattr(systems, "train_run", train)
    monkeypatch.setattr(systems, "evaluate_run", evaluate)
    monkeypatch.setattr(
        systems, "step_seconds", lambda folder: [9.0, 0.2 if folder.name.startswith("allinone") else 0.4]
    )
    monkeypatch.setattr(systems, "_parameters", lambda config, _: 1000 if "allinone" in config else 900)
    return runs


def row(text, name):
    return [
        cell.strip() for line in text.splitlines() if line.startswith(f"| {name} ") for cell in line.split("|")[1:-1]
    ]


def test_both_train_for_the_given_minutes_at_their_own_speed(tmp_path, ran):
    compare_systems(arguments(), tmp_path)
    assert [run for run in ran if "speed" not in run[0]] == [
        ("allinone_demo_seed1", 1, 600), ("baseline_demo_seed1", 1, 300),
        ("allinone_demo_seed2", 2, 600), ("baseline_demo_seed2", 2, 300),
    ]  # fmt: skip


def test_finished_runs_are_read_back_and_the_table_stays_the_same(tmp_path, ran):
    text = compare_systems(arguments(), tmp_path)
    before = len(ran)
    assert compare_systems(arguments(), tmp_path) == text == (tmp_path / "table2.md").read_text().rstrip("\n")
    assert len(ran) == before


@pytest.mark.usefixtures("ran")
def test_the_winner_is_the_one_with_the_better_numbers_whichever_it_is(tmp_path):
    text = compare_systems(arguments(), tmp_path)
    assert "* seg m: allinone_demo by 0.2000 (0.5150 against 0.3150; 2 seeds, ranges do not overlap)" in text
    assert "* cls m: baseline_demo by 0.1000 (0.8150 against 0.9150; 2 seeds, ranges do not overlap)" in text
    assert "* score: allinone_demo by 0.2000 (" in text
    assert row(text, "baseline_demo")[1:5] == ["0.00 M", "2 of 2", "300", "1.2"]


def test_what_was_not_run_says_so_and_has_no_numbers(tmp_path, ran):
    text = compare_systems(arguments(print=True), tmp_path)
    assert ran == []
    assert row(text, "allinone_demo")[2:] == ["0 of 2", *["not run"] * 3]
    assert "who wins: not run" in text
    compare_systems(arguments(seeds=[1]), tmp_path)
    text = compare_systems(arguments(print=True), tmp_path)
    assert row(text, "allinone_demo")[2] == "1 of 2"
    assert "one seed" in text


@pytest.mark.usefixtures("ran")
def test_runs_of_other_settings_are_not_mixed_in(tmp_path):
    compare_systems(arguments(seeds=[1]), tmp_path)
    with pytest.raises(ValueError, match="give another --output_dir"):
        compare_systems(arguments(seeds=[1], minutes=3.0), tmp_path)


@pytest.mark.usefixtures("ran")
def test_a_system_is_not_compared_with_itself(tmp_path):
    with pytest.raises(ValueError, match="two files of different names with the same tasks"):
        compare_systems(arguments(against=str(CONFIGS / "allinone_demo.yml")), tmp_path)


@pytest.mark.parametrize("flag", [{"tasks": ["seg"]}, {"seed": 0}], ids=str)
def test_flags_that_would_be_ignored_are_refused(tmp_path, flag):
    with pytest.raises(ValueError, match="--seeds instead of --seed, and no --tasks"):
        compare_systems(arguments(**flag), tmp_path)


def test_the_backbones_width_makes_the_parameters_equal_within_a_twentieth():
    system = System(str(CONFIGS / "baseline_demo.yml"), tuple(ANY_DATA), 0)
    wanted = systems._parameters(str(CONFIGS / "allinone_demo.yml"), ANY_DATA)
    made = as_large(system, wanted)
    assert abs(made.parameters - wanted) <= 0.05 * wanted
    assert made.overrides[-1].startswith("model.backbone.dim=")
    with pytest.raises(ValueError, match="not within 5% of 100"):
        as_large(system, 100)


def test_equal_numbers_have_no_winner():
    pair = (System("a.yml", (), 1), System("b.yml", (), 1))
    same = Cell({"seg m": 0.5}, 1, 1.0, None)
    lines = systems._winners(pair, [1], {("a", 1): same, ("b", 1): same}, ["seg m"])
    assert lines[0] == "seg m: equal (0.5000 against 0.5000; one seed)"
