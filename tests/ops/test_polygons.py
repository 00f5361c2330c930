"""Polygons give back every pixel under the official rasteriser, whatever the shapes."""

import cv2
import numpy as np
import pytest

from ppmtl.ops.polygons import decode, encode


def _official(polygons, size):
    """The scorer's rasteriser as docs/submission.md describes it."""
    label_map = np.zeros(size, np.uint8)
    for key in polygons:
        contours = [np.array(contour, np.int32) for contour in polygons[key] if len(contour) > 2]
        if contours:
            cv2.fillPoly(label_map, contours, int(key))
    return label_map


def _check_round_trip(label_map, num_classes=19):
    polygons = encode(label_map, num_classes)
    assert list(polygons) == [str(index) for index in range(num_classes)]
    np.testing.assert_array_equal(_official(polygons, label_map.shape), label_map)
    np.testing.assert_array_equal(decode(polygons, label_map.shape), label_map)
    for index in range(1, num_classes):  # each class by itself paints its own pixels and no other: any order would do
        alone = _official({str(index): polygons[str(index)]}, label_map.shape)
        np.testing.assert_array_equal(alone == index, label_map == index)


@pytest.mark.parametrize("seed", range(30))
def test_noise_of_every_density_comes_back_exactly(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 40, 2))
    density = rng.choice([0.02, 0.2, 0.5, 0.8, 1.0])
    _check_round_trip(np.where(rng.random(size) < density, rng.integers(0, 19, size), 3).astype(np.uint8))


@pytest.mark.parametrize("seed", range(20))
def test_binary_noise_where_holes_touch_at_corners_comes_back_exactly(seed):
    rng = np.random.default_rng(seed)
    _check_round_trip((rng.random((33, 47)) < (seed + 1) / 21).astype(np.uint8), 2)


@pytest.mark.parametrize("seed", range(10))
def test_thin_lines_rings_and_blobs_come_back_exactly(seed):
    rng = np.random.default_rng(seed)
    label_map = np.zeros((90, 120), np.uint8)
    for _ in range(40):
        a, b = rng.integers(-10, 130, 2).tolist(), rng.integers(-10, 130, 2).tolist()
        label, thick, kind = int(rng.integers(0, 19)), int(rng.integers(1, 4)), rng.integers(0, 3)
        if kind == 0:
            cv2.line(label_map, a, b, label, thick)
        elif kind == 1:
            cv2.circle(label_map, a, int(rng.integers(1, 40)), label, thick)
        else:
            cv2.ellipse(label_map, a, rng.integers(1, 30, 2).tolist(), 30.0, 0.0, 360.0, label, -1)
    _check_round_trip(label_map)


def test_every_map_of_three_by_four_pixels_and_two_classes_comes_back_exactly():
    for bits in range(2**12):
        label_map = np.array([bits >> i & 1 for i in range(12)], np.uint8).reshape(3, 4)
        np.testing.assert_array_equal(decode(encode(label_map, 2), (3, 4)), label_map)


def test_one_pixel_and_one_line_shapes_get_three_points():
    label_map = np.zeros((20, 20), np.uint8)
    label_map[3, 4] = 1
    label_map[8, 2:15] = 2
    label_map[np.arange(10, 18), np.arange(10, 18)] = 3
    label_map[0, 0] = label_map[19, 19] = 4
    polygons = encode(label_map, 19)
    assert polygons["1"] == [[[4, 3]] * 3]
    assert all(len(contour) == 3 for index in "1234" for contour in polygons[index])
    _check_round_trip(label_map)


def test_nested_rings_of_two_classes_come_back_exactly():
    label_map = np.zeros((60, 60), np.uint8)
    for depth in range(0, 28, 2):
        label_map[depth : 60 - depth, depth : 60 - depth] = 5 + depth // 2 % 2 * 6
    _check_round_trip(label_map)


def test_a_map_without_road_and_a_single_pixel_map_come_back():
    _check_round_trip(np.full((7, 9), 18, np.uint8))
    _check_round_trip(np.full((1, 1), 2, np.uint8))
    assert encode(np.full((7, 9), 18, np.uint8), 19)["0"] == []


def test_later_classes_paint_over_earlier_ones_and_short_contours_are_skipped():
    square = [[0, 0], [0, 4], [4, 4], [4, 0]]
    got = decode({"7": [square], "2": [[[1, 1], [1, 2], [2, 2], [2, 1]]], "3": [[[3, 3], [3, 3]], [4, 4]]}, (6, 6))
    assert (got[1:3, 1:3] == 2).all()
    assert got[3, 3] == got[4, 4] == 7
    assert got[5, 5] == 0


def test_ignored_and_unknown_labels_are_refused():
    with pytest.raises(ValueError, match=r"labels must be 0\.\.18, got 255"):
        encode(np.full((2, 2), 255, np.uint8), 19)
    with pytest.raises(ValueError, match=r"labels must be 0\.\.18, got 19"):
        encode(np.full((2, 2), 19, np.uint8), 19)
    with pytest.raises(ValueError, match="uint8"):
        encode(np.zeros((2, 2), np.int64), 19)
