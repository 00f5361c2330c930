"""What two runs of one model with equal weights may differ by: the last digits, and which of two equal things comes first."""

import numpy as np
import pytest


def assert_same(found: dict, expected: dict) -> None:
    """Both have "cls" and "det" as the JSON files and the service write them."""
    assert [row["class"] for row in found["cls"]["top"]] == [row["class"] for row in expected["cls"]["top"]]
    boxes, wanted = (sorted(document["det"]["boxes"], key=place) for document in (found, expected))
    assert len(boxes) == len(wanted) > 0
    for box, same in zip(boxes, wanted, strict=True):
        assert box["class"] == same["class"]
        assert box["score"] == pytest.approx(same["score"], abs=1e-4)
        assert box["bbox"] == pytest.approx(same["bbox"], abs=0.05)


def place(box: dict) -> tuple:
    """Boxes of equal scores may come in either order."""
    return -round(box["score"], 3), box["class"], *box["bbox"]


def assert_same_map(found: np.ndarray, expected: np.ndarray) -> None:
    """Where two classes are equally likely, the last digit decides."""
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 1
    assert np.mean(found != expected) < 1e-3
