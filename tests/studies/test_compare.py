"""The arithmetic of single against joint."""

import math
from pathlib import Path

import pytest

from ppmtl import build
from ppmtl.studies.compare import Measured, _own_pace, comparison, delta_m


def run(tasks: tuple[str, ...], seed: int = 0, **metrics: float) -> Measured:
    return Measured(tasks, seed, metrics, train_seconds=10.0 * len(tasks), parameters=2_000_000, macs=10**9)


RUNS = [run(("seg",), seg=0.4), run(("det",), det=0.5), run(("seg", "det"), seg=0.5, det=0.45)]
PRIMARIES = {"seg": "miou", "det": "ap50"}


def test_delta_m_is_the_mean_relative_change():
    assert delta_m({"seg": 0.4, "det": 0.5}, {"seg": 0.5, "det": 0.45}) == pytest.approx((0.25 - 0.1) / 2)


def test_delta_m_of_a_task_that_learned_nothing_alone_is_undefined():
    assert math.isnan(delta_m({"seg": 0.0}, {"seg": 0.5}))


def test_the_table_has_changes_and_ratios():
    text = comparison(RUNS, PRIMARIES)
    seg, det = (line.split("|") for line in text.splitlines()[2:4])
    assert [cell.strip() for cell in seg[1:-1]] == ["seg", "miou", "0.4000", "0.5000", "+0.1000", "+25.0%"]
    assert [cell.strip() for cell in det[1:-1]] == ["det", "ap50", "0.5000", "0.4500", "-0.0500", "-10.0%"]
    assert "+7.50%" in text
    parameters = next(line for line in text.splitlines() if line.startswith("| parameters"))
    assert [cell.strip() for cell in parameters.split("|")[2:-1]] == ["4.00 M", "2.00 M", "0.50"]
    seconds = next(line for line in text.splitlines() if line.startswith("| training seconds"))
    assert [cell.strip() for cell in seconds.split("|")[2:-1]] == ["20", "20", "1.00"]


def test_several_seeds_show_mean_and_range():
    again = [run(("seg",), 1, seg=0.6), run(("det",), 1, det=0.5), run(("seg", "det"), 1, seg=0.5, det=0.5)]
    text = comparison(RUNS + again, PRIMARIES)
    assert "0.5000 (0.4000 to 0.6000)" in text
    assert "seeds 0, 1" in text


def test_a_task_alone_takes_as_many_of_its_batches_as_beside_the_others():
    demo = str(Path(__file__).resolve().parents[2] / "configs" / "allinone_demo.yml")
    run = build.load(demo, ["sources.cls.every=2", "sources.det.every=4"])
    assert _own_pace(run, ["seg", "cls", "det"], 101) == (101, [])
    assert _own_pace(run, ["cls"], 101) == (51, ["sources.cls.every=1"])
    assert _own_pace(run, ["cls", "det"], 101) == (51, ["sources.cls.every=1", "sources.det.every=2"])
