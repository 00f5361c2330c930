"""Tiles of a large image: where they lie, and which boxes they cut."""

from itertools import pairwise

import numpy as np
import pytest

from ppmtl.ops.tiles import cut_by, tile_windows


def test_tiles_of_a_line_are_counted_by_hand():
    # 1000 px in tiles of 400 that share 100: steps of 300 give 0, 300, 600
    windows = tile_windows((400, 1000), (400, 400), (0.25, 0.25))
    assert windows == [(0, 0, 400, 400), (300, 0, 700, 400), (600, 0, 1000, 400)]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("size", [(701, 1500), (400, 401), (1, 3000)])
def test_tiles_cover_every_pixel_and_overlap_by_what_was_asked(size, overlap):
    windows = tile_windows(size, (400, 300), (overlap, overlap))
    seen = np.zeros(size, bool)
    for x1, y1, x2, y2 in windows:
        assert (y2 - y1, x2 - x1) == (min(400, size[0]), min(300, size[1]))
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    columns = sorted({(x1, x2) for x1, _, x2, _ in windows})
    for (_, end), (start, _) in pairwise(columns):
        assert end - start >= int(300 * overlap)


@pytest.mark.parametrize("size", [(400, 400), (1, 1), (399, 400)])
def test_an_image_that_fits_into_one_tile_has_none(size):
    assert tile_windows(size, (400, 400), (0.25, 0.25)) == []


def test_only_borders_inside_the_image_cut():
    boxes = np.array([[0, 5, 9, 9], [40, 5, 50, 9], [5, 0, 9, 9], [5, 40, 9, 50], [5, 5, 9, 9], [42, 5, 47, 9]], float)
    first = cut_by((0, 0, 50, 50), (100, 100), boxes, 2)
    assert first.tolist() == [False, True, False, True, False, False]
    assert cut_by((0, 0, 50, 50), (50, 50), boxes, 2).tolist() == [False] * 6
    assert cut_by((0, 0, 50, 50), (100, 100), np.zeros((0, 4)), 2).shape == (0,)
