"""What passes, what fails, and that a missing reference is neither. These run everywhere."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from references import Row, relative, summary

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "difference, verdict",
    [
        (0.0, "equal"),
        (0.1, "equal"),
        (0.11, "DIFFERENT"),
        (np.nan, "DIFFERENT"),
        (np.inf, "DIFFERENT"),
        (None, "not run"),
    ],
)
def test_nan_is_different_and_a_missing_comparison_never_equal(difference, verdict):
    row = Row("part", "quantity", "package 1.0", difference, 0.1, "why")
    assert row.verdict == verdict
    assert f"| {verdict} |" in summary([row]).splitlines()[2]


def test_relative_differences_see_names_shapes_and_nan():
    one, two = np.ones(3), np.array([1.0, 1.0, 2.0])
    assert relative([one], [one]) == 0.0
    assert relative([one], [two]) == 0.5
    assert relative([one], [np.ones((3, 1))]) == relative({"a": one}, {"b": one}) == np.inf
    assert np.isnan(relative([np.array([np.nan]), one], [np.ones(1), one]))
    with pytest.raises(ValueError, match="longer"):
        relative([one], [one, one])


@pytest.mark.skipif(importlib.util.find_spec("paddleseg") is not None, reason="the references are installed")
def test_a_run_that_compared_nothing_fails_and_says_why():
    command = [sys.executable, "-m", "pytest", "-m", "parity", "-W", "ignore", "tests/parity/test_parity_heads.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "| UPerNet | - | paddleseg | - | - | not run | paddleseg cannot be imported" in result.stdout
    assert "0 equal, 0 DIFFERENT, 11 not run" in result.stdout


def test_every_reference_is_pinned_and_said_in_the_page():
    lines = (ROOT / "requirements-suites.txt").read_text().splitlines()
    pins = {line.split(";")[0].strip() for line in lines if line and not line.startswith("#")}
    assert {"paddleseg==2.8.0", "paddledet==2.6.0", "paddleclas==2.6.0", "timm==1.0.31"} <= pins
    page = (ROOT / "docs" / "parity.md").read_text()
    for pin in pins:
        assert pin.replace("==", " ") in page
