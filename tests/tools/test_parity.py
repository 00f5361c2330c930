"""The comparison tool: what passes, what fails, and that a missing reference is neither."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import parity  # noqa: E402
from parity_checks import backbone, heads, measures, outcome, pictures  # noqa: E402
from parity_checks.outcome import NotRun, Outcome  # noqa: E402


def row(difference: float | None, tolerance: float = 0.1) -> Outcome:
    return Outcome("part", "quantity", "package 1.0", difference, tolerance, "why")


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (0.0, "equal"),
        (0.1, "equal"),
        (0.11, "DIFFERENT"),
        (float("nan"), "DIFFERENT"),
        (float("inf"), "DIFFERENT"),
        (None, "not run"),
    ],
)
def test_verdicts(difference, verdict):
    assert row(difference).verdict == verdict
    assert verdict in outcome.table([row(difference)]).splitlines()[2]


@pytest.mark.parametrize(
    ("differences", "code"),
    [([0.0, None], 0), ([0.0, 0.2], 1), ([None, None], 1), ([], 1), ([0.0, float("nan")], 1)],
    ids=["equal and not run", "one differs", "nothing ran", "nothing", "nan"],
)
def test_the_exit_code_is_0_only_when_something_ran_and_nothing_differs(monkeypatch, tmp_path, differences, code):
    monkeypatch.setattr(measures, "checks", lambda: [row(d) for d in differences])
    path = tmp_path / "rows.json"
    assert parity.main(["--only", "measures", "--json", str(path)]) == code
    document = json.loads(path.read_text())
    assert len(document["rows"]) == len(differences) == sum(document["count"].values())


@pytest.mark.parametrize(("room", "components"), [(backbone, 2), (heads, 5), (pictures, 9), (measures, 3)])
def test_a_missing_reference_is_not_run_and_gives_its_reason(monkeypatch, room, components):
    def missing(module: str, package: str) -> None:
        raise NotRun(f"{package} cannot be imported: {module}")

    monkeypatch.setattr(room, "need", missing)
    rows = list(room.checks())
    assert len(rows) == components
    assert {r.verdict for r in rows} == {"not run"}
    assert all(r.reason for r in rows)


def test_an_import_that_fails_inside_a_reference_is_not_run():
    with pytest.raises(NotRun, match=r"made-up cannot be imported: ModuleNotFoundError"):
        outcome.need("no_such_reference.part", "made-up")


def test_relative_differences_see_shape_and_nan():
    one, two = np.ones(3), np.array([1.0, 1.0, 2.0])
    assert outcome.relative([one], [one]) == 0.0
    assert outcome.relative([one], [two]) == 0.5
    assert outcome.relative([one], [np.ones((3, 1))]) == float("inf")
    assert np.isnan(outcome.relative([np.array([np.nan]), one], [np.ones(1), one]))
    with pytest.raises(ValueError, match="longer"):
        outcome.relative([one], [one, one])


def test_scripted_draws_replace_numpy_and_come_back():
    before = np.random.uniform
    with pictures.scripted(np.random, {"uniform": [0.25, 0.5]}):
        assert (np.random.uniform(0, 1), np.random.uniform()) == (0.25, 0.5)
    assert np.random.uniform is before


def test_every_reference_is_pinned_and_said_in_the_page():
    lines = (TOOLS.parent / "requirements-suites.txt").read_text().splitlines()
    pins = {line.split(";")[0].strip() for line in lines if line and not line.startswith("#")}
    assert {"paddleseg==2.8.0", "paddledet==2.6.0", "paddleclas==2.6.0", "timm==1.0.31"} <= pins
    page = (TOOLS.parent / "docs" / "parity.md").read_text()
    for pin in pins:
        assert pin.replace("==", " ") in page
