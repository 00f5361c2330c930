"""The best and worst images of an evaluation."""

import numpy as np
import pytest
from samples import make_sample

from ppmtl.predict.extremes import ExtremesMeter, extremes
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification, ClassProbs

TASK = Classification("cls", ClassList(("a", "b")))


def kept(scores, count, size=(4, 6)):
    """The positions of the worst and of the best images; the prediction's probability is the score."""
    meter = ExtremesMeter(TASK, count, 0.5)
    for position, score in enumerate(scores):
        image = make_sample(np.zeros((*size, 3), np.uint8), class_index=0)
        meter.add(image, ClassProbs(np.array([score, 0], np.float32)), position)
    found = extremes(meter.kept, count)
    return [[image.position for image in part] for part in (found.worst, found.best)], meter.kept


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_adding_one_by_one_keeps_what_sorting_all_would(levels):
    scores = np.random.default_rng(levels).integers(0, levels, 40) / 1024
    order = np.argsort(scores, kind="stable")
    best = sorted(order[3:], key=lambda i: (-scores[i], i))[:3]
    assert kept(scores, 3)[0] == [order[:3].tolist(), best]


def test_images_without_a_score_or_a_label_are_left_out_and_large_ones_made_small():
    assert kept([np.nan, 0.5], 2)[0] == [[1], []]
    meter = ExtremesMeter(TASK, 2, 0.5)
    meter.add(make_sample(np.zeros((4, 6, 3), np.uint8)), ClassProbs(np.array([1, 0], np.float32)), 0)
    assert meter.kept == []
    ((image,), (large,)) = kept([0.5], 1)[1], kept([0.5], 1, (600, 1200))[1]
    assert image.pair.shape == (4, 16, 3)
    assert large.pair.shape == (250, 1000, 3)
