"""Run lengths are COCO's, polygons are drawn and moved as exactly as pixels allow."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as api

from ppmtl.ops import affine
from ppmtl.ops.masks import Rle, draw_mask, mask_hull, move_mask, packed, unpacked


def _pixels(rng):
    height, width = rng.integers(1, 25, 2)
    return (rng.random((height, width)) < rng.choice([0, 0.1, 0.5, 0.9, 1])).astype(np.uint8)


def _without_empty_end(counts):
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def _star(rng, size, corners=9):
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.2, 0.5, corners)[:, None] * min(size)
    return np.array(size[::-1]) / 2 + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_are_those_of_pycocotools_and_give_the_pixels_back(seed):
    pixels = _pixels(np.random.default_rng(seed))
    theirs = api.encode(np.asfortranarray(pixels))
    mine = Rle.of(pixels)
    np.testing.assert_array_equal(mine.pixels(), pixels)
    np.testing.assert_array_equal(_without_empty_end(unpacked(theirs["counts"].decode())), mine.counts)
    assert mine.area() == pixels.sum()
    np.testing.assert_array_equal(unpacked(packed(mine.counts)), mine.counts)
    assert packed(unpacked(theirs["counts"].decode())) == theirs["counts"].decode()
    given = {"size": list(mine.size), "counts": mine.counts.tolist()}
    np.testing.assert_array_equal(api.decode(api.frPyObjects(given, *mine.size)), pixels)


@pytest.mark.parametrize("seed", range(20))
def test_a_part_of_an_image_has_the_run_lengths_of_the_image(seed):
    rng = np.random.default_rng(seed)
    part = _pixels(rng)
    (top, left), (bottom, right) = rng.integers(0, 4, 2), rng.integers(0, 4, 2)
    image = np.pad(part, ((top, bottom), (left, right)))
    np.testing.assert_array_equal(Rle.of(part, image.shape, (top, left)).counts, Rle.of(image).counts)


def test_run_lengths_that_do_not_fill_the_image_are_refused():
    with pytest.raises(ValueError, match="must add up to 2 x 3 pixels, got 2 that add up to 5"):
        Rle((2, 3), np.array([1, 4]))
    with pytest.raises(ValueError, match="must not be negative"):
        Rle((2, 3), np.array([7, -1]))


WRONG_TEXT = {"a\x7f": r"got '\\x7f'", "1 2": "got ' '", "o": "cut off", "o" * 40: "short numbers"}


@pytest.mark.parametrize("text", WRONG_TEXT)
def test_text_that_is_no_run_lengths_is_refused(text):
    with pytest.raises(ValueError, match=WRONG_TEXT[text]):
        unpacked(text)


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_polygon_has_the_pixels_whose_centres_it_holds(seed):
    rng = np.random.default_rng(seed)
    size, ring = (40, 50), _star(np.random.default_rng(seed), (40, 50))
    ring[0] = rng.uniform(-10, 60, 2)  # also beyond the image
    drawn = draw_mask((ring,), size)
    for y, x in rng.integers(0, size, (60, 2)):
        edges = zip(ring, np.roll(ring, -1, axis=0), strict=True)
        above = [(p, q) for p, q in edges if (p[1] <= y + 0.5) != (q[1] <= y + 0.5)]
        left = [p[0] + (y + 0.5 - p[1]) / (q[1] - p[1]) * (q[0] - p[0]) <= x + 0.5 for p, q in above]
        assert drawn[y, x] == sum(left) % 2


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_polygon_differs_from_pycocotools_along_its_outline_only(seed):
    size, ring = (60, 80), _star(np.random.default_rng(seed), (60, 80))
    theirs = api.decode(api.merge(api.frPyObjects([ring.ravel().tolist()], *size)))
    outline = np.abs(np.roll(ring, -1, axis=0) - ring).sum()
    assert (draw_mask((ring,), size) != theirs).sum() < 0.25 * outline


def test_two_rings_of_an_object_are_united():
    rings = tuple(np.array([[x, 0], [x + 4, 0], [x + 4, 2], [x, 2]], float) for x in (0, 2))
    assert draw_mask(rings, (2, 8)).tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]] * 2


MOVES = {
    "shrunk": affine.scaling(0.5, 0.75),
    "enlarged": affine.scaling(1.5, 2.5),
    "mirrored": affine.horizontal_flip(80),
    "cropped": affine.translation(-20, -15),
    "padded": affine.translation(13, 9),
    "turned": affine.rotation(20, (40, 30)),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("seed", range(5))
def test_moving_and_drawing_is_drawing_and_warping_up_to_the_pixels_at_the_outline(move, seed):
    a, size, ring = MOVES[move], (60, 80), _star(np.random.default_rng(seed), (60, 80))
    moved = draw_mask(move_mask((ring,), a, size), size)
    warped = affine.warp(draw_mask((ring,), size), a, size, "nearest", 0)
    kernel = np.ones((3, 3), np.uint8)
    # Within a pixel of the coarser of the two grids
    reach = int(np.ceil(np.abs(a[:, :2]).max()))
    inner, outer = cv2.erode(warped, kernel, iterations=reach), cv2.dilate(warped, kernel, iterations=reach)
    assert moved.any()
    assert ((moved >= inner) & (moved <= outer)).all()
    if move in ("mirrored", "cropped", "padded"):
        np.testing.assert_array_equal(moved, warped)
        np.testing.assert_array_equal(move_mask(Rle.of(draw_mask((ring,), size)), a, size).pixels(), warped)


def test_a_cut_polygon_ends_at_the_window_and_one_outside_is_gone():
    square = np.array([[-5, -5], [15, -5], [15, 5], [-5, 5]], float)
    (cut,) = move_mask((square,), affine.identity(), (8, 10))
    assert (cut.min(axis=0).tolist(), cut.max(axis=0).tolist()) == ([0, 0], [10, 5])
    assert move_mask((square,), affine.translation(30, 0), (8, 10)) == ()


@pytest.mark.parametrize("seed", range(8))
def test_the_hull_of_run_lengths_is_that_of_their_pixels(seed):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((9, 14), np.uint8)
    top, left = rng.integers(0, 6, 2)
    part = pixels[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)]
    part[:] = rng.random(part.shape) < 0.3 if seed % 2 else 1
    part.flat[0] = 1
    y, x = np.nonzero(pixels)
    hull = Rle.of(pixels).hull()
    assert hull is not None
    assert hull.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_the_hull_holds_all_pixels_and_an_empty_mask_has_none():
    assert mask_hull(Rle.of(np.pad(np.ones((2, 3)), ((1, 4), (5, 0)))), (7, 8)).tolist() == [5, 1, 8, 3]
    assert mask_hull((np.array([[1, 2], [4, 2], [4, 3.75], [1, 3.75]]),), (9, 9)).tolist() == [1, 2, 4, 4]
    assert mask_hull(Rle.of(np.zeros((2, 2))), (2, 2)) is None
    assert mask_hull((), (2, 2)) is None
