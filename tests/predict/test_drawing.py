"""Drawings of what several tasks found."""

import numpy as np
import pytest
from samples import make_sample

from ppmtl.ops.boxes import Detections
from ppmtl.ops.drawing import class_colors, write_lines, write_text
from ppmtl.predict.drawing import draw, draw_sample, with_legend
from ppmtl.structures import ClassList
from ppmtl.tasks.captions import Caption, Captions
from ppmtl.tasks.classification import Classification, ClassProbs
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import SegMap, Segmentation

CLASSES = ClassList(("road", "sky", "my own class"))
TASKS = {"seg": Segmentation("seg", CLASSES), "cls": Classification("cls", CLASSES), "det": Detection("det", CLASSES)}
IMAGE = np.full((120, 160, 3), 100, np.uint8)
MAP = SegMap(np.ones((120, 160), np.uint8))
PROBS = ClassProbs(np.array([0.1, 0.2, 0.7], np.float32))


def test_known_street_classes_keep_their_colours_and_others_get_their_own():
    colors = class_colors(CLASSES)
    assert colors[0].tolist() == [128, 64, 128]
    assert len(np.unique(class_colors(ClassList(tuple(map(str, range(45))))), axis=0)) == 45


def test_masks_are_blended_and_unlabelled_pixels_left_alone():
    labels = np.zeros((120, 160), np.uint8)
    labels[:, 80:] = 255
    drawn = draw(IMAGE, {"seg": SegMap(labels)}, TASKS, 0.5)
    assert drawn[60, 20].tolist() == [114, 82, 114]
    assert drawn[60, 120].tolist() == [100, 100, 100]


def test_boxes_below_the_threshold_are_not_drawn():
    boxes = np.array([[10, 40, 60, 90], [90, 40, 150, 90]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.2], np.float32), np.array([2, 2]))
    drawn = draw(IMAGE, {"det": found}, TASKS, 0.5)
    assert (drawn[65, 10] != 100).any()
    assert (drawn[65, 90] == 100).all()


def test_masks_lie_below_objects_and_objects_below_text_whatever_the_order():
    box = Detections(np.array([[0, 2, 160, 110]], np.float32), np.array([0.9], np.float32), np.array([2]))
    found = {"cls": PROBS, "det": box, "seg": MAP}
    expected = IMAGE
    for name in ("seg", "det", "cls"):
        expected = draw(expected, {name: found[name]}, TASKS, 0.5)
    assert np.array_equal(draw(IMAGE, found, TASKS, 0.5), expected)
    assert np.array_equal(draw(IMAGE, dict(reversed(found.items())), TASKS, 0.5), expected)


def test_the_given_image_is_not_painted_on():
    before = IMAGE.copy()
    draw(IMAGE, {"cls": PROBS}, TASKS, 0.5)
    assert np.array_equal(IMAGE, before)


def test_labels_and_predictions_stand_side_by_side():
    sample = make_sample(IMAGE, label_map=np.zeros((120, 160), np.uint8), boxes=np.array([[10, 40, 60, 90]]))
    # A class without a label, and boxes that were not asked for: neither is drawn on the left
    both = draw_sample(sample, {"seg": MAP, "cls": PROBS}, TASKS, 0.5)
    assert both.shape == (120, 324, 3)
    assert np.array_equal(both[:, :160], draw(IMAGE, {"seg": SegMap(np.zeros_like(MAP.labels))}, TASKS, 0.5))
    assert np.array_equal(both[:, 164:], draw(IMAGE, {"seg": MAP, "cls": PROBS}, TASKS, 0.5))


def test_the_legend_stands_beside_the_image_and_has_the_classes_that_the_mask_shows():
    labels = np.zeros((120, 160), np.uint8)
    labels[:, 80:], labels[0, 0] = 2, 255
    drawn = with_legend(IMAGE, {"seg": SegMap(labels), "cls": PROBS}, TASKS)
    assert drawn.shape[1] > IMAGE.shape[1]
    assert np.array_equal(drawn[:, :160], IMAGE)
    colors = {tuple(color) for color in drawn[:, 160:].reshape(-1, 3).tolist()}
    road, sky, own = (tuple(color) for color in class_colors(CLASSES).tolist())
    assert {road, own} <= colors
    assert sky not in colors


def test_a_legend_that_is_higher_than_the_image_goes_on_beside_itself():
    classes = ClassList(tuple(map(str, range(60))))
    labels = np.arange(64 * 96).reshape(64, 96) % 60
    drawn = with_legend(
        IMAGE[:64, :96], {"seg": SegMap(labels.astype(np.uint8))}, {"seg": Segmentation("seg", classes)}
    )
    colors = {tuple(color) for color in drawn[:, 96:].reshape(-1, 3).tolist()}
    assert {tuple(color) for color in class_colors(classes).tolist()} <= colors


def test_without_a_mask_there_is_no_legend():
    assert np.array_equal(with_legend(IMAGE, {"cls": PROBS}, TASKS), IMAGE)


LONG = "a man rides a horse next to a long train on a steel track while others look at him from the platform " * 3


@pytest.mark.parametrize("text", ["a dog", LONG, "w" * 500, ""])
@pytest.mark.parametrize("size", [(120, 160), (64, 96), (96, 64), (480, 640)])
def test_a_sentence_takes_a_third_of_the_image_at_most_and_its_score_is_always_written(size, text):
    drawn = {score: np.full((*size, 3), 100, np.uint8) for score in (0.11, 0.88)}
    task = Captions("cap", ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]")))
    for score, canvas in drawn.items():
        task.draw(canvas, Caption(text, score), 0.5)
        assert (canvas[: size[0] * 2 // 3] == 100).all()
    assert (drawn[0.11] != drawn[0.88]).any()


def test_all_words_of_a_sentence_that_fits_are_inside_the_image():
    wide, narrow = np.zeros((900, 4000, 3), np.uint8), np.zeros((900, 300, 3), np.uint8)
    for canvas in (wide, narrow):
        write_lines(canvas, "word " * 12, "0.50")
    rows = [int((canvas.max(axis=(1, 2)) > 0).sum()) for canvas in (wide, narrow)]
    assert rows[1] > 1.5 * rows[0] * 300 / 4000  # several lines
    assert (narrow[:, -2:] == 0).all()


@pytest.mark.parametrize("name", ["car", "a car with a name that is wider than any image of this size can be"])
def test_a_name_wider_than_the_image_is_cut_and_its_score_is_not(name):
    drawn = [np.full((64, 96, 3), 100, np.uint8) for _ in range(2)]
    for canvas, end in zip(drawn, (" 0.11", " 0.88"), strict=True):
        write_text(canvas, name, (80, 10), (32, 32, 32), end=end)
    changed = np.nonzero((drawn[0] != drawn[1]).any(axis=(0, 2)))[0]
    assert len(changed)
    assert changed.max() < 95  # the last column stays free
