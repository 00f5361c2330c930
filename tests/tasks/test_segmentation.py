"""Mean IoU: golden conventions and hand-made maps."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from samples import make_sample

from ppmtl.predict.pipeline import Pipeline
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.segmentation import SegMap, Segmentation, mean_iou
from ppmtl.tasks.views import Slicing, View

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


class Colours:
    """A network whose answer hangs on each pixel alone: the class of its red value, with probabilities that sum to 1."""

    def __init__(self, classes: int = 4, stride: int = 1) -> None:
        self.classes, self.stride, self.shapes = classes, stride, []

    def __call__(self, images, names):
        self.shapes += [image.shape[:2] for image in images]
        red = images[:, :: self.stride, :: self.stride, 0] // 32 % self.classes
        right = np.eye(self.classes, dtype=np.float32)[red].transpose(0, 3, 1, 2)
        return {name: {"probs": 0.1 / self.classes + 0.9 * right} for name in names}


def predict(image, backend=None, *, augment=False, shared_size=None, **settings):
    task = Segmentation("seg", ClassList(tuple("abcd")), **settings)
    pipeline = Pipeline({"seg": task}, backend or Colours(), augment=augment, shared_size=shared_size, batch_size=2)
    return pipeline.predict([image], ["x"])[0]["seg"].labels


NOISE = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)


@pytest.mark.parametrize("average", ["probs", "logits"])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("overlap", [(0.0, 0.0), (0.25, 0.5)])
def test_tiles_of_a_network_that_looks_at_one_pixel_at_a_time_join_to_the_map_of_the_whole(overlap, augment, average):
    backend = Colours()
    tiled = predict(NOISE, backend, augment=augment, average=average, tile=Slicing((32, 40), overlap))
    assert np.array_equal(tiled, predict(NOISE, average=average))
    assert set(backend.shapes) == {(32, 40)}
    assert np.array_equal(tiled, NOISE[..., 0] // 32 % 4)


def test_the_share_of_every_tile_in_a_pixel_sums_to_one_and_fades_out_at_its_border():
    task = Segmentation("seg", ClassList(("a", "b")), tile=Slicing((32, 40), (0.25, 0.25)))
    size, shares, views = (70, 101), [], task.views((70, 101), augment=False)
    assert len(views) == 12
    for index in range(len(views)):  # this tile says class b, all others class a
        merge = task.new_merge()
        for other, view in enumerate(views):
            said = np.zeros((1, 2, *view.size), np.float32)
            said[:, int(other == index)] = 1
            merge.add(task.decode({"probs": said}, 0, view.meta(size, "x"), single=False))
        mean = merge.mean()
        np.testing.assert_allclose(mean.sum(axis=0), 1, atol=1e-6)
        shares.append(mean[1])
    np.testing.assert_allclose(np.sum(shares, axis=0), 1, atol=1e-5)
    _, _, x2, y2 = views[0].window
    assert (shares[0][y2:] == 0).all()
    assert (shares[0][:, x2:] == 0).all()
    assert shares[0][0, x2 - 1] < 0.1 < 0.9 < shares[0][0, 8]


def test_tiles_keep_the_magnification_of_the_images_that_the_network_learned_with():
    backend = Colours()
    predict(NOISE, backend, input_size=(16, 20), tile=Slicing((32, 40)))
    predict(NOISE, backend, input_size=(16, 20), tile=Slicing((32, 40)), shared_size=(60, 60))
    assert set(backend.shapes) == {(16, 20)}  # half size, as an image of 32 x 40 is shown
    assert backend.shapes.count((16, 20)) == 24


def test_an_image_no_larger_than_a_tile_is_shown_as_without_tiles():
    small = NOISE[:30, :40]
    backend = Colours()
    assert np.array_equal(
        predict(small, backend, input_size=(60, 80), tile=Slicing((32, 40))), predict(small, input_size=(60, 80))
    )
    assert backend.shapes == [(60, 80)]


@pytest.mark.parametrize("settings", [{"input_size": (32, 40)}, {"long_side": 40}])
def test_without_a_size_of_its_own_a_tile_is_as_large_as_the_input(settings):
    backend = Colours()
    assert np.array_equal(predict(NOISE, backend, tile=Slicing(), **settings), NOISE[..., 0] // 32 % 4)
    assert set(backend.shapes) == {settings.get("input_size", (40, 40))}


@pytest.mark.parametrize("letterbox", [False, True])
def test_coarse_answers_of_letterboxed_tiles_leave_no_pixel_out(letterbox):
    labels = predict(NOISE, Colours(stride=4), input_size=(48, 48), letterbox=letterbox, tile=Slicing((40, 60)))
    assert labels.shape == (70, 101)
    assert labels.max() < 4


def test_tiles_without_any_size_are_refused():
    with pytest.raises(ValueError, match=r"tasks\.seg\.tile: .* say how large a tile is: size"):
        Segmentation("seg", ClassList(("a",)), tile=Slicing())


def test_tiles_of_a_large_image_need_memory_for_one_sum_and_one_tile():
    task = Segmentation("seg", ClassList(tuple("abcd")), tile=Slicing((64, 64)))
    size = (1024, 1024)
    views, merge = task.views(size, augment=False), task.new_merge()
    said = np.full((1, 4, 64, 64), 0.25, np.float32)
    tracemalloc.start()
    for view in views:
        merge.add(task.decode({"probs": said}, 0, view.meta(size, "x"), single=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(views) > 400
    assert peak < 1.3 * 5 * 4 * 1024 * 1024  # four classes and a weight in float32
