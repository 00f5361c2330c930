"""Whether an evaluation reproduced what its config expects."""

import pytest

from ppmtl.predict import expected
from ppmtl.predict.evaluate import Evaluation
from ppmtl.tasks.base import Metrics


def evaluation(**values):
    return Evaluation({"seg": Metrics("miou", values, {})}, {"seg": 0.0}, {})


def test_values_within_their_tolerance_are_a_reproduction():
    rows = expected.compare(evaluation(miou=0.52), {"seg": {"miou": (0.5, 0.03)}})
    assert [row.met for row in rows] == [True]
    assert expected.text(rows).endswith("eval.expected: reproduced")


@pytest.mark.parametrize(
    "measured, why", [(0.54, "measured 0.5400"), (0.46, "measured 0.4600"), (float("nan"), "no such")]
)
def test_one_value_outside_is_none_and_is_named(measured, why):
    rows = expected.compare(evaluation(miou=0.5, fwiou=measured), {"seg": {"miou": (0.5, 0.0), "fwiou": (0.5, 0.03)}})
    assert [row.met for row in rows] == [True, False]
    lines = expected.text(rows).splitlines()
    assert lines[1].startswith("seg.fwiou: ")
    assert why in lines[1]
    assert lines[2] == "eval.expected: NOT reproduced: 1 of 2 expected values were not met"


def test_a_task_that_was_not_measured_is_not_met():
    assert not expected.compare(evaluation(miou=0.5), {"det": {"ap50": (0.5, 1.0)}})[0].met
