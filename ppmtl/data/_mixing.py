"""What the transforms do that show several images as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ppmtl.data._windows import draw_corner, whole_pixels
from ppmtl.data.canvas import Canvas
from ppmtl.ops import affine
from ppmtl.structures import Label, Sample, Size


def mosaic(
    canvas: Canvas, size: Size, centre: tuple[int, int], factors: Sequence[float], rng: np.random.Generator
) -> None:
    """Fills the four corners of a window of ``size``, which meet at ``centre`` (y, x), with this sample and three others.

    Args:
        factors: magnification of each, 1 = as large as fits into the window.
    """
    (height, width), (y, x) = size, centre
    tiles = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]
    samples = [canvas.sample, *(canvas.another(rng) for _ in tiles[1:])]
    for index, (sample, tile, factor) in enumerate(zip(samples, tiles, factors, strict=True)):
        placed, where = _in_tile(sample, tile, size, factor, rng), np.zeros(size, bool)
        where[tile[0] : tile[2], tile[1] : tile[3]] = True
        if index == 0:
            canvas.sample = placed
        else:
            canvas.lay(placed, where, np.where(where[..., None], placed.image, canvas.image))


def _in_tile(
    sample: Sample, tile: tuple[int, int, int, int], size: Size, factor: float, rng: np.random.Generator
) -> Sample:
    """A random part of the sample in the rectangle ``tile`` (top, left, bottom, right) of a window of ``size``."""
    top, left, bottom, right = tile
    canvas, fit = Canvas(sample), factor * min(size[0] / sample.size[0], size[1] / sample.size[1])
    canvas.stretch((whole_pixels(sample.size[0] * fit), whole_pixels(sample.size[1] * fit)))
    canvas.crop(draw_corner(canvas.size, (bottom - top, right - left), rng), (bottom - top, right - left))
    canvas.crop((-top, -left), size)
    return canvas.sample


def blend(canvas: Canvas, share: float, rng: np.random.Generator) -> None:
    """Mixes ``share`` of this image with the rest of another one of the same size."""
    other = _fitted(canvas, rng)
    image = share * canvas.image.astype(np.float32) + (1 - share) * other.image
    canvas.lay(other, None, np.rint(image).astype(canvas.image.dtype))


def cover(canvas: Canvas, tile: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    """Lays the rectangle ``tile`` (top, left, bottom, right) of another image, stretched to this one's size, over it."""
    other = Canvas(canvas.another(rng))
    other.stretch(canvas.size)
    where = np.zeros(canvas.size, bool)
    where[tile[0] : tile[2], tile[1] : tile[3]] = True
    canvas.lay(other.sample, where, np.where(where[..., None], other.image, canvas.image))


def paste(canvas: Canvas, share: float, rng: np.random.Generator) -> None:
    """Lays some objects of another image over this one, each with probability ``share``.

    Raises:
        ValueError: if the other image has objects without masks of any kind: nobody could say what was pasted of them.
    """
    other, where, labels = _fitted(canvas, rng), np.zeros(canvas.size, bool), dict[str, Label]()
    for task, label in other.labels.items():
        regions = label.regions(canvas.size)
        if label.complete and len(regions) < len(label.objects()):
            raise ValueError(
                f"{other.path}: copy_paste needs masks, the label of task '{task}' is of kind {type(label).__name__}; "
                "remove copy_paste, or use a reader of instances"
            )
        chosen = np.array([bool(region.any()) and rng.random() < share for region in regions], bool)
        for region in (region for region, is_chosen in zip(regions, chosen, strict=True) if is_chosen):
            where |= region != 0
        labels[task] = label.kept(chosen) if regions else label
    if where.any():
        canvas.lay(replace(other, labels=labels), where, np.where(where[..., None], other.image, canvas.image))


def _fitted(canvas: Canvas, rng: np.random.Generator) -> Sample:
    """Another sample, letterboxed to the window."""
    other = Canvas(canvas.another(rng))
    other.move(affine.letterbox(other.size, canvas.size), canvas.size)
    return other.sample
