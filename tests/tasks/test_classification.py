"""Top-k and averaging."""

from dataclasses import replace

import numpy as np
import pytest
from samples import make_sample

from ppmtl.data.labels import ClassIndex
from ppmtl.data.transforms import CutMix, MixUp, Mosaic
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.classification import Classification, ClassProbs

CLASSES = ClassList(tuple("abcdefg"))


def image(index):
    return make_sample(np.zeros((2, 2, 3), np.uint8), class_index=index)


def test_top1_and_top5_by_hand():
    meter = Classification("cls", CLASSES).new_meter()
    ranking = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02], np.float32)
    for truth in (0, 4, 5, 0):
        meter.add(image(truth), ClassProbs(ranking))
    result = meter.result()
    assert result.values == pytest.approx({"top1": 0.5, "top5": 0.75})
    assert result.confusion.sum() == 4
    assert result.confusion[4, 0] == 1


def test_nothing_measured_is_not_a_number():
    assert np.isnan(Classification("cls", CLASSES).new_meter().result().values["top1"])


def test_views_are_averaged_and_one_view_comes_back_as_it_is():
    merge = Classification("cls", CLASSES).new_merge()
    first = np.array([1, 0, 0, 0, 0, 0, 0], np.float32)
    merge.add(ClassProbs(first))
    assert merge.result().probs is first
    merge.add(ClassProbs(first[::-1].copy()))
    assert merge.result().probs.tolist() == [0.5, 0, 0, 0, 0, 0, 0.5]


def test_an_image_without_a_class_has_the_index_minus_one():
    image = np.zeros((2, 2, 3), np.uint8)
    samples = [Sample("a.jpg", image), Sample("b.jpg", image, {"cls": ClassIndex(3)})]
    assert Classification("cls", CLASSES).collate(samples)["class_index"].tolist() == [-1, 3]


def test_mixed_images_give_shares_and_mosaics_are_refused():
    task = Classification("cls", CLASSES)
    samples = [image(2), image(1), make_sample(np.zeros((2, 2, 3), np.uint8))]
    mixed = replace(samples[0], labels={"cls": ClassIndex(2, {0: 0.25, 2: 0.75})})
    targets = task.collate([mixed, *samples[1:]])
    assert targets["class_index"].tolist() == [2, 1, -1]
    assert targets["class_shares"][:, :3].tolist() == [[0.25, 0, 0.75], [0, 1, 0], [0, 0, 0]]
    assert task.refuses(CutMix()) == task.refuses(MixUp()) == ""
    assert "Mosaic shows several images as one" in task.refuses(Mosaic(size=(8, 8)))
