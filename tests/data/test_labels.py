"""Labels of several images in one: what is said about the result is true, or nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from ppmtl.data.labels import Boxes, Captions, ClassIndex, Instances, LabelMap
from ppmtl.ops import affine
from ppmtl.ops.masks import Rle, draw_mask
from ppmtl.structures import IGNORE_LABEL

SIZE = (20, 30)
WHERE = np.zeros(SIZE, bool)  # the upper image covers the right half
WHERE[:, 15:] = True


def square(x1: float, y1: float, x2: float, y2: float) -> tuple[np.ndarray, ...]:
    return (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64),)


def instances(*boxes: list[float], masks: tuple[object, ...] | None = None) -> Instances:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    found = tuple(square(*box) for box in boxes) if masks is None else masks
    return Instances(array, np.arange(len(array)), masks=found)  # type: ignore[arg-type]


def test_objects_that_are_covered_lose_what_is_covered_and_then_count_no_more() -> None:
    lower = instances([2, 2, 10, 8], [10, 2, 20, 12], [14, 2, 28, 9])
    joined = lower.joined(instances([20, 5, 28, 9]), WHERE, 0.15)
    assert joined is not None
    assert joined.boxes.tolist() == [[2, 2, 10, 8], [10, 2, 15, 12], [20, 5, 28, 9]]
    assert joined.classes.tolist() == [0, 1, 0]
    assert [draw_mask(mask, SIZE).sum() for mask in joined.masks if mask] == [48, 50, 32]
    assert joined.masks[0] is lower.masks[0]  # untouched, so still the file's own polygon


def test_boxes_that_are_covered_are_dropped() -> None:
    lower = Boxes(np.array([[0, 0, 9, 9], [14, 0, 28, 9]], np.float32), np.array([0, 1]))
    joined = lower.joined(Boxes(np.array([[16, 1, 20, 5]], np.float32), np.array([2])), WHERE, 0.15)
    assert joined is not None
    assert joined.classes.tolist() == [0, 2]


def test_images_blended_with_each_other_have_the_objects_of_both() -> None:
    joined = instances([2, 2, 10, 8]).joined(instances([3, 3, 11, 9]), None, 0.15)
    assert joined is not None
    assert (len(joined.boxes), len(joined.masks)) == (2, 2)


@pytest.mark.parametrize("label", [instances([1, 1, 5, 5]), Boxes(np.ones((1, 4), np.float32), np.array([0]))])
def test_objects_are_unknown_where_one_of_the_images_has_no_list_of_them(label: Boxes) -> None:
    assert label.joined(None, WHERE, 0.15) is None


def test_a_label_map_is_the_upper_one_where_that_covers_and_unknown_where_it_has_none() -> None:
    lower, upper = LabelMap(np.full(SIZE, 1, np.uint8)), LabelMap(np.full(SIZE, 2, np.uint8))
    assert np.unique(lower.joined(upper, WHERE, 0).labels[:, 14:16]).tolist() == [1, 2]
    np.testing.assert_array_equal(lower.joined(None, WHERE, 0).labels == IGNORE_LABEL, WHERE)


def test_where_two_label_maps_show_through_only_agreement_is_known() -> None:
    lower, upper = LabelMap(np.array([[1, 2]], np.uint8)), LabelMap(np.array([[1, 3]], np.uint8))
    assert lower.joined(upper, None, 0).labels.tolist() == [[1, IGNORE_LABEL]]
    assert lower.joined(None, None, 0).labels.tolist() == [[IGNORE_LABEL] * 2]


def test_a_mixed_image_has_each_class_by_the_share_that_shows_it() -> None:
    quarter = np.zeros((4, 4), bool)
    quarter[:2, :2] = True
    mixed = ClassIndex(1).joined(ClassIndex(3), quarter, 0)
    assert mixed == ClassIndex(1, {1: 0.75, 3: 0.25})
    assert mixed.joined(ClassIndex(3), None, 0) == ClassIndex(3, {1: 0.375, 3: 0.625})
    assert ClassIndex(1).joined(ClassIndex(1), quarter, 0) == ClassIndex(1)
    assert ClassIndex(1).joined(None, quarter, 0) is None


def test_captions_are_shuffled_and_none_is_lost() -> None:
    label, rng = Captions(("a", "b", "c", "d")), np.random.default_rng(0)
    orders = {label.drawn(rng).texts for _ in range(200)}
    assert len(orders) == 24
    assert {frozenset(texts) for texts in orders} == {frozenset("abcd")}


def test_a_cut_object_gets_the_box_of_what_is_left_of_its_mask() -> None:
    corner = (np.array([[0, 0], [20, 0], [0, 20]], np.float64),)  # a triangle: little of it is in the right half
    label = Instances(np.array([[0, 0, 20, 20]], np.float32), np.array([0]), masks=(corner,))
    moved = label.moved(affine.translation(-10, 0), (20, 10), 0.15)
    assert moved.boxes.tolist() == [[0, 0, 9, 9]]  # of its pixels: the tips hold no pixel's centre
    assert label.moved(affine.translation(-10, -10), (10, 10), 0.0).boxes.tolist() == []  # its box is seen, it is not


def test_an_object_without_a_mask_moves_as_a_box() -> None:
    label = instances([0, 0, 20, 20], masks=(None,))
    moved = label.moved(affine.translation(-10, 0), (20, 10), 0.15)
    assert (moved.boxes.tolist(), moved.masks) == ([[0, 0, 10, 20]], (None,))


def test_masks_and_boxes_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match=r"one mask \(or None\) per box is needed, got 0 for 1 boxes"):
        Instances(np.ones((1, 4), np.float32), np.array([0]))


def test_keeping_some_objects_keeps_their_masks() -> None:
    label = instances([0, 0, 4, 4], [5, 5, 9, 9], [1, 1, 2, 2])
    kept = label.kept(np.array([True, False, True]))
    assert kept.masks == (label.masks[0], label.masks[2])
    assert isinstance(Rle.of(label.regions(SIZE)[1]), Rle)
