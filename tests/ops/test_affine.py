"""Geometry: one half-pixel convention, exact where exactness is possible."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ppmtl.ops import affine


def noise(height: int = 13, width: int = 17) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_compose_applies_the_first_map_first() -> None:
    a = affine.compose(affine.translation(1, 0), affine.scaling(2, 2))
    np.testing.assert_array_equal(a @ [3, 5, 1], [8, 10])


def test_invert_undoes_any_regular_map() -> None:
    a = affine.compose(affine.rotation(20, (3, 4)), affine.scaling(2, 0.5), affine.horizontal_flip(9))
    np.testing.assert_allclose(affine.compose(a, affine.invert(a)), affine.identity(), atol=1e-12)


def test_invert_refuses_a_flat_map() -> None:
    with pytest.raises(ValueError, match="determinant"):
        affine.invert(affine.scaling(0, 1))


def test_rotation_keeps_its_centre_and_positive_degrees_turn_anticlockwise() -> None:
    a = affine.rotation(90, (5, 5))
    np.testing.assert_allclose(a @ [5, 5, 1], [5, 5], atol=1e-12)
    np.testing.assert_allclose(a @ [8, 5, 1], [5, 2], atol=1e-12)  # right of the centre -> above it


def test_boxes_become_the_hull_of_their_corners() -> None:
    boxes = np.array([[1, 2, 3, 6]], np.float32)
    np.testing.assert_array_equal(affine.apply_to_boxes(affine.horizontal_flip(10), boxes), [[7, 2, 9, 6]])
    turned = affine.apply_to_boxes(affine.rotation(90, (2, 4)), boxes)
    np.testing.assert_allclose(turned, [[0, 3, 4, 5]], atol=1e-6)
    assert turned.dtype == np.float32
    assert affine.apply_to_boxes(affine.identity(), boxes[:0]).shape == (0, 4)


@pytest.mark.parametrize("size", [(26, 34), (7, 9), (13, 34), (40, 5)])
@pytest.mark.parametrize(
    "name, flag", [("linear", cv2.INTER_LINEAR), ("cubic", cv2.INTER_CUBIC), ("nearest", cv2.INTER_NEAREST_EXACT)]
)
def test_plain_scaling_is_cv2_resize_bit_for_bit(size: tuple[int, int], name: affine.Interpolation, flag: int) -> None:
    image = noise()
    scaled = affine.warp(image, affine.scaling(size[1] / 17, size[0] / 13), size, name, 0)
    np.testing.assert_array_equal(scaled, cv2.resize(image, (size[1], size[0]), interpolation=flag))


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_scale_then_shifted_window_agrees_with_resize_then_crop(
    factor: float, interpolation: affine.Interpolation
) -> None:
    image = cv2.GaussianBlur(noise(48, 66), (0, 0), 3)
    full = affine.warp(
        image, affine.scaling(factor, factor), (round(48 * factor), round(66 * factor)), interpolation, 0
    )
    # One output pixel of offset is a fraction of an input pixel, so this goes through warpAffine, not through resize.
    to_window = affine.compose(affine.scaling(factor, factor), affine.translation(-1, -1))
    window = affine.warp(image, to_window, (full.shape[0] + 1, full.shape[1] + 1), interpolation, 7)
    difference = np.abs(window[:-2, :-2].astype(int) - full[1:, 1:])
    assert difference.max() <= (1 if interpolation == "linear" else 0)
    assert (window[-2:] == 7).all()
    assert (window[:, -2:] == 7).all()


def test_flips_reverse_columns_or_rows_and_flipping_twice_is_the_identity() -> None:
    image = noise()
    once = affine.warp(image, affine.horizontal_flip(17), (13, 17), "linear", 0)
    np.testing.assert_array_equal(once, image[:, ::-1])
    np.testing.assert_array_equal(affine.warp(once, affine.horizontal_flip(17), (13, 17), "linear", 0), image)
    upside_down = np.array([[1.0, 0, 0], [0, -1.0, 13]])
    np.testing.assert_array_equal(affine.warp(image, upside_down, (13, 17), "linear", 0), image[::-1])


def test_flipped_scaling_is_the_flip_of_the_scaling() -> None:
    image = noise()
    flipped = affine.compose(affine.scaling(2, 2), affine.horizontal_flip(34))
    expected = affine.warp(image, affine.scaling(2, 2), (26, 34), "linear", 0)[:, ::-1]
    np.testing.assert_array_equal(affine.warp(image, flipped, (26, 34), "linear", 0), expected)


@pytest.mark.parametrize("x, y", [(0, 0), (3, 2), (-4, 5), (10, -3), (100, 0)])
def test_whole_pixel_windows_are_copied_and_padded_exactly(x: int, y: int) -> None:
    image = noise()
    window = affine.warp(image, affine.translation(-x, -y), (8, 9), "cubic", 7)
    padded = np.full((13 + 200, 17 + 200, 3), 7, np.uint8)
    padded[100:113, 100:117] = image
    np.testing.assert_array_equal(window, padded[100 + y : 108 + y, 100 + x : 109 + x])


def test_nothing_is_copied_when_nothing_moves() -> None:
    image = noise()
    assert affine.warp(image, affine.identity(), (13, 17), "linear", 0) is image


def test_a_whole_pixel_crop_is_resized_as_that_crop() -> None:
    image = noise()
    a = affine.compose(affine.translation(-2, -3), affine.scaling(2, 2))
    expected = cv2.resize(image[3:8, 2:10], (16, 10), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(affine.warp(image, a, (10, 16), "linear", 0), expected)


@pytest.mark.parametrize("seed", range(10))
def test_nearest_never_invents_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 3, 18], np.uint8), (40, 50))
    scale = rng.uniform(0.3, 3)
    a = affine.compose(affine.rotation(rng.uniform(-30, 30), (25, 20)), affine.scaling(scale, scale))
    assert set(np.unique(affine.warp(labels, a, (64, 64), "nearest", 255))) <= {0, 3, 18, 255}


def test_rotation_by_a_right_angle_moves_whole_pixels() -> None:
    image = noise(12, 12)
    turned = affine.warp(image, affine.rotation(90, (6, 6)), (12, 12), "linear", 0)
    np.testing.assert_array_equal(turned, np.rot90(image))


def test_boxes_and_pixels_move_together() -> None:
    image = np.zeros((60, 80), np.uint8)
    image[20:30, 40:56] = 255
    a = affine.compose(affine.scaling(1.7, 1.3), affine.horizontal_flip(136), affine.translation(3, 5))
    moved = affine.warp(image, a, (90, 150), "linear", 0) > 127
    rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
    box = affine.apply_to_boxes(a, np.array([[40, 20, 56, 30]], np.float32))[0]
    np.testing.assert_allclose([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], box, atol=0.6)


def test_an_empty_output_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1x1"):
        affine.warp(noise(), affine.identity(), (0, 5), "linear", 0)
