"""Mean IoU: golden conventions and hand-made maps."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from samples import make_sample

from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.segmentation import SegMap, Segmentation, mean_iou
from ppmtl.tasks.views import View

CASES = json.loads((Path(__file__).parents[1] / "golden" / "miou.json").read_text())["cases"]


def meter_of(labels, predictions, classes, absent="skip"):
    meter = Segmentation("seg", ClassList(tuple(map(str, range(classes)))), absent=absent).new_meter()
    for label, prediction in zip(labels, predictions, strict=True):
        image = np.zeros((*np.shape(label), 3), np.uint8)
        meter.add(make_sample(image, np.array(label, np.uint8)), SegMap(np.array(prediction, np.uint8)))
    return meter.result()


GOLDEN_KEYS = {
    "miou_absent_zero": "miou_absent_as_0_paddleseg_2_7",
    "miou_absent_one": "miou_absent_as_1_paddleseg_after_2023_10",
    "miou_absent_skipped": "miou_absent_skipped",
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_all_three_conventions_equal_the_golden_values(case):
    values = meter_of(case["label"], case["pred"], case["num_classes"]).values
    for ours, theirs in GOLDEN_KEYS.items():
        assert values[ours] == pytest.approx(case[theirs], abs=1e-12)


def test_the_convention_picks_the_primary_metric():
    label, prediction = [[[0, 0]]], [[[0, 0]]]
    assert [meter_of(label, prediction, 2, absent).values["miou"] for absent in ("skip", "zero", "one")] == [
        1.0,
        0.5,
        1.0,
    ]


def test_ignored_pixels_do_not_count_against_the_prediction():
    assert meter_of([[[0, 255, 1]]], [[[0, 1, 1]]], 2).values["miou"] == 1.0


def test_an_empty_matrix_has_no_mean():
    assert np.isnan(mean_iou(np.zeros((2, 2), np.int64), "skip"))


def test_no_pixel_of_an_image_without_a_label_map_is_labelled():
    task = Segmentation("seg", ClassList(("a",)))
    targets = task.collate([Sample("street.jpg", np.zeros((2, 3, 3), np.uint8))])
    assert targets["label_map"].tolist() == [[[255] * 3] * 2]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("original", [(24, 40), (61, 83), (12, 16)])
def test_labels_made_class_by_class_are_the_argmax_of_the_resized_map(original, flip):
    task = Segmentation("seg", ClassList(tuple("abcde")))
    probs = np.random.default_rng(0).random((1, 5, 12, 16), np.float32)
    meta = View((24, 32), flip).meta(original, "x")
    one = task.decode({"probs": probs}, 0, meta, single=True)
    kept = task.decode({"probs": probs}, 0, meta, single=False)
    assert np.array_equal(kept.labels, kept.probs.argmax(axis=0))
    assert one.probs is None
    assert np.mean(one.labels != kept.labels) < 1e-3  # exact ties only
    assert len(np.unique(one.labels)) == 5


def test_one_view_of_a_large_image_needs_memory_for_a_few_classes_only():
    task = Segmentation("seg", ClassList(tuple(map(str, range(19)))))
    probs = np.random.default_rng(0).random((1, 19, 32, 48), np.float32)
    meta = View((32, 48)).meta((640, 960), "x")
    tracemalloc.start()
    task.decode({"probs": probs}, 0, meta, single=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 640 * 960 * 4 < peak < 5 * 640 * 960 * 4
