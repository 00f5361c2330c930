"""The pipeline with backends made by hand."""

import numpy as np
import pytest

from ppmtl.ops.affine import apply_to_boxes
from ppmtl.predict.pipeline import Pipeline, make_view
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import Segmentation
from ppmtl.tasks.views import Slicing, TestTimeAugmentation, View

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
CLASSES = ClassList(("a", "b", "c"))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).astype(np.float32)


class Recorder:
    """A backend whose answer is a function of the pixels, so that a flipped input gives a flipped answer."""

    def __init__(self):
        self.calls = []

    def __call__(self, images, tasks):
        self.calls.append((images.shape, tasks))
        x = images.astype(np.float32) / 64
        raw = {}
        if "seg" in tasks:
            raw["seg"] = {"probs": softmax(x.transpose(0, 3, 1, 2), 1)}
        if "cls" in tasks:
            raw["cls"] = {"probs": softmax(x.mean(axis=(1, 2)), 1)}
        if "det" in tasks:
            h, w = images.shape[1:3]
            box = np.array([0.1 * w, 0.2 * h, 0.5 * w, 0.6 * h], np.float32)
            raw["det"] = {
                "boxes": np.tile(box, (len(images), 1, 1)),
                "scores": np.tile(np.array([0.9, 0.0, 0.0], np.float32), (len(images), 1, 1)),
            }
        return raw


def make_tasks(**tta):
    views = TestTimeAugmentation(**tta)
    return {
        "seg": Segmentation("seg", CLASSES, tta=views),
        "cls": Classification("cls", CLASSES, input_size=(16, 16), tta=views),
        "det": Detection("det", CLASSES, input_size=(32, 32), tta=views),
    }


def test_flipping_a_view_twice_is_the_image_itself():
    view = View((24, 40), flip=True)
    assert np.array_equal(make_view(make_view(IMAGE, view), view), IMAGE)


def test_a_views_meta_takes_boxes_back():
    meta = View((48, 20), flip=True).meta((24, 40), "x")
    box = np.array([[0, 0, 5, 48]], np.float32)  # the left quarter of the mirrored view is the image's right quarter
    assert apply_to_boxes(meta.to_original, box) == pytest.approx(np.array([[30, 0, 40, 24]]))


def test_augmentation_with_one_view_equals_none_bit_for_bit():
    one = Pipeline(make_tasks(scales=(1.0,), flip=False), Recorder(), augment=True).predict([IMAGE], ["x"])[0]
    none = Pipeline(make_tasks(), Recorder()).predict([IMAGE], ["x"])[0]
    assert np.array_equal(one["seg"].labels, none["seg"].labels)
    assert np.array_equal(one["cls"].probs, none["cls"].probs)
    for field in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(one["det"], field), getattr(none["det"], field))


def test_a_flipped_view_of_an_equivariant_network_changes_nothing():
    plain = Pipeline(make_tasks(), Recorder()).predict([IMAGE], ["x"])[0]
    both = Pipeline(make_tasks(scales=(1.0,), flip=True), Recorder(), augment=True).predict([IMAGE], ["x"])[0]
    assert np.array_equal(plain["seg"].labels, both["seg"].labels)
    assert both["cls"].probs == pytest.approx(plain["cls"].probs, abs=1e-6)
    # this detector sees nothing: it answers x in [.1, .5] of any input, which in the flipped view is [.5, .9] of the image
    assert sorted(both["det"].boxes[:, 0].tolist()) == pytest.approx([4.0, 20.0], abs=1e-4)


def test_a_shared_size_runs_the_backbone_once():
    backend = Recorder()
    Pipeline(make_tasks(), backend, shared_size=(32, 64)).predict([IMAGE], ["x"])
    assert backend.calls == [((1, 32, 64, 3), ("seg", "cls", "det"))]


def test_views_of_one_size_run_as_one_batch():
    backend = Recorder()
    Pipeline({"seg": make_tasks()["seg"]}, backend, batch_size=2).predict([IMAGE, IMAGE, IMAGE], ["x", "y", "z"])
    assert [shape[0] for shape, _ in backend.calls] == [2, 1]


def test_images_of_different_sizes_keep_their_order():
    small, large = IMAGE[:12], IMAGE
    predictions = Pipeline(make_tasks(), Recorder(), batch_size=4).predict([small, large, small], ["x", "y", "z"])
    assert [p["seg"].labels.shape for p in predictions] == [(12, 40), (24, 40), (12, 40)]


def test_averaging_probabilities_and_logits_can_differ():
    """misc.json, tta_average_matters: three views of one pixel."""
    logits = [[4.0, 0.0, 0.0], [0.0, 1.6, 0.0], [0.0, 1.6, 0.0]]
    answers = []
    for average in ("probs", "logits"):
        task = Segmentation("seg", CLASSES, average=average)
        merge = task.new_merge()
        for view in logits:
            raw = {"probs": softmax(np.array(view, np.float32), 0).reshape(1, 3, 1, 1)}
            merge.add(task.decode(raw, 0, View((1, 1)).meta((1, 1), "x"), single=False))
        answers.append(int(merge.result().labels[0, 0]))
    assert answers == [1, 0]


def test_scales_are_rounded_and_snapped_as_the_paper_needs():
    cls = Classification(
        "cls", CLASSES, input_size=(448, 448), tta=TestTimeAugmentation((1.0, 1.2, 1.4), flip=True, snap=32)
    )
    assert [v.size for v in cls.views((100, 100), augment=True)][::2] == [(448, 448), (544, 544), (640, 640)]
    seg = Segmentation("seg", CLASSES, tta=TestTimeAugmentation((1.0, 1.2, 1.6), flip=False))
    assert [v.size for v in seg.views((720, 1280), augment=True)] == [(720, 1280), (864, 1536), (1152, 2048)]


def test_long_side_keeps_the_aspect():
    assert Detection("det", CLASSES, long_side=1248).plain_size((480, 816)) == (734, 1248)
    with pytest.raises(ValueError, match="not both"):
        Detection("det", CLASSES, long_side=10, input_size=(1, 1))


class Finder:
    """A detector of white squares that are at least 5 px wide in the network input, as a small sign needs some pixels."""

    def __init__(self):
        self.calls = []

    def __call__(self, images, tasks):
        self.calls.append((images.shape, tasks))
        boxes, scores = np.zeros((len(images), 4, 4), np.float32), np.zeros((len(images), 4, 3), np.float32)
        for index, image in enumerate(images):
            ys, xs = np.nonzero(image[..., 0] > 127)
            if len(xs) and xs.max() - xs.min() >= 4:
                boxes[index, 0] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
                scores[index, 0, 1] = 0.8
        raw = {"det": {"boxes": boxes, "scores": scores}}
        if "cls" in tasks:
            raw["cls"] = {"probs": np.ones((len(images), 3), np.float32) / 3}
        return raw


def with_square(x, y, side=10, size=(160, 240)):
    image = np.zeros((*size, 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    return image


def test_a_sign_too_small_for_the_full_image_is_found_in_a_tile():
    image = with_square(201, 33)
    full = Pipeline({"det": make_tasks()["det"]}, Finder()).predict([image], ["x"])[0]["det"]
    assert len(full) == 0
    tiled = Pipeline({"det": make_tasks()["det"]}, Finder(), slicing=Slicing()).predict([image], ["x"])[0]["det"]
    assert tiled.boxes[0] == pytest.approx([201, 33, 211, 43])
    assert tiled.scores[0] == pytest.approx(0.8)  # not divided by the number of views
    assert tiled.labels.tolist() == [1]


@pytest.mark.parametrize("x", range(0, 230, 3))
def test_a_sign_on_a_border_between_tiles_is_found_once_and_uncut(x):
    slicing = Slicing((32, 32), (0.5, 0.5))  # 16 px shared: the sign and the margin around it
    found = Pipeline({"det": make_tasks()["det"]}, Finder(), slicing=slicing).predict([with_square(x, 77)], ["x"])
    assert found[0]["det"].boxes == pytest.approx(np.array([[x, 77, x + 10, 87]]), abs=1e-3)


def test_slicing_an_image_that_fits_into_one_tile_changes_nothing():
    image, tasks = with_square(5, 7, size=(32, 32)), {"det": make_tasks()["det"]}
    sliced = Pipeline(tasks, Finder(), slicing=Slicing((32, 32))).predict([image], ["x"])[0]["det"]
    plain = Pipeline(tasks, Finder()).predict([image], ["x"])[0]["det"]
    assert len(plain) == 1
    assert np.array_equal(sliced.boxes, plain.boxes)
    assert np.array_equal(sliced.scores, plain.scores)


def test_tiles_go_to_detection_only_run_as_batches_and_compose_with_a_shared_size_and_augmentation():
    tasks = {name: make_tasks(scales=(1.0,), flip=True)[name] for name in ("cls", "det")}
    backend = Finder()
    Pipeline(tasks, backend, shared_size=(16, 24), slicing=Slicing((80, 80), (0, 0)), batch_size=4).predict(
        [with_square(3, 3)], ["x"]
    )
    assert backend.calls == [((1, 16, 24, 3), ("cls", "det")), ((4, 32, 32, 3), ("det",)), ((2, 32, 32, 3), ("det",))]
    backend = Finder()
    pipeline = Pipeline(tasks, backend, augment=True, slicing=Slicing((80, 80), (0, 0)))
    found = pipeline.predict([with_square(5, 5, side=20)], ["x"])[0]["det"]
    assert len(backend.calls) == 2 + 2 + 6
    assert found.boxes[0] == pytest.approx([5, 5, 25, 25], abs=2.6)  # a tile is shown at 32/80


def test_slicing_without_any_size_says_how_to_give_one():
    task = Detection("det", CLASSES)
    with pytest.raises(ValueError, match=r"tasks\.det.*--slice_size"):
        Pipeline({"det": task}, Finder(), slicing=Slicing()).predict([with_square(3, 3)], ["x"])


def test_the_first_tasks_size_is_shared_per_image():
    tasks = {"seg": Segmentation("seg", CLASSES, long_side=20), "cls": Classification("cls", CLASSES)}
    backend = Recorder()
    Pipeline(tasks, backend, shared_size="first").predict([IMAGE, IMAGE[:, :24]], ["x", "y"])
    assert backend.calls == [((1, 12, 20, 3), ("seg", "cls")), ((1, 20, 20, 3), ("seg", "cls"))]


def test_the_cost_of_one_size_for_all_names_the_tasks_that_are_evaluated_at_others():
    tasks = {
        "seg": Segmentation("seg", CLASSES),
        "cls": Classification("cls", CLASSES, input_size=(32, 48)),
        "det": Detection("det", CLASSES, input_size=(32, 48), letterbox=True),
    }
    note = Pipeline(tasks, Recorder(), shared_size=(32, 48)).size_note()
    assert note.startswith("every task sees 32x48, so that the backbone runs once")
    assert "evaluation shows seg at the image's own size, det at 32x48 letterboxed, and" in note
    assert "the first task's size" in Pipeline(tasks, Recorder(), shared_size="first").size_note()
    assert Pipeline({"cls": tasks["cls"]}, Recorder(), shared_size="first").size_note() == ""
    assert Pipeline(tasks, Recorder()).size_note() == ""


def test_seconds_are_counted_by_stage():
    pipeline = Pipeline(make_tasks(), Recorder())
    pipeline.predict([IMAGE], ["x"])
    assert set(pipeline.seconds) == {"preprocess", "inference", "postprocess"}
    assert min(pipeline.seconds.values()) > 0
