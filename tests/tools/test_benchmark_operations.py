"""The benchmark checks before it times, and never counts a missing reference as passed."""

import json
import sys

import pytest

from ppmtl.studies.benchmark import Case, Pair, average_precision, training


@pytest.fixture
def benchmark(monkeypatch):
    """The tool; it sets the number of threads when it is imported, which must not reach the tests that follow."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    from tools import benchmark

    return benchmark


def test_a_row_is_printed_and_written(benchmark, tmp_path, capsys):
    assert benchmark.main(["--only", "confusion", "--rounds", "2", "--json", str(tmp_path / "out.json")]) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["ratio"] == pytest.approx(row["reference_ms"] / row["ours_ms"])
    assert row["status"] in ("reached", "below target")
    assert row["rounds"] == 2
    assert "| confusion matrix, 720x1280, 19 classes | numpy 2." in capsys.readouterr().out


def test_a_reference_that_is_not_installed_is_not_run(benchmark, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ensemble_boxes", None)
    assert benchmark.main(["--only", "6 x 300 boxes"]) == 0
    out = capsys.readouterr().out
    assert "not run: ensemble_boxes is not installed" in out
    assert "reached" not in out


def test_a_different_result_is_not_timed_and_fails(benchmark, monkeypatch, capsys):
    pair = Pair(lambda: 1, lambda: 2, lambda a, b: a == b)
    monkeypatch.setattr(benchmark, "CASES", (Case("wrong", lambda: pair, "numpy", 1),))
    assert benchmark.main([]) == 1
    assert "not run: the results differ" in capsys.readouterr().out


def test_average_precision_agrees_with_pycocotools():
    pytest.importorskip("pycocotools")
    pair = average_precision()
    ours, theirs = pair.ours(), pair.reference()
    assert pair.agree(ours, theirs)
    assert 0.1 < ours[0] < 0.99


def test_a_training_pass_by_numba_agrees_with_paddles_and_not_with_another_nets(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr("paddle.set_flags", lambda _: None)  # of the whole process
    pair = training("demo", "paddlepaddle")
    ours, theirs = pair.ours(), pair.reference()
    assert len(ours) > 60
    assert pair.agree(ours, theirs)
    assert not pair.agree(ours, theirs | {"stages.0.0.gamma": 2 * theirs["stages.0.0.gamma"]})


def test_a_name_that_matches_nothing_is_refused(benchmark):
    with pytest.raises(SystemExit) as error:
        benchmark.main(["--only", "nothing like it"])
    assert error.value.code == 2
