"""Masks of single objects: run lengths in COCO's order, and polygons with real-valued corners. numpy and OpenCV only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppmtl.ops import affine
from ppmtl.structures import Size

Rings = tuple[np.ndarray, ...]  # closed outlines, (K, 2) float64 x, y in pixels each; an object is their union


_MOST_BITS = 32  # of a run length; no image has more pixels


@dataclass(frozen=True, eq=False)
class Rle:
    """The pixels of one object, however large the image is.

    Attributes:
        size: (height, width) of the image.
        counts: (R,) int32 lengths of runs down the columns, one column after the other; the first counts zeros. This is
            COCO's order, so ``{"size": size, "counts": counts}`` is its uncompressed form.
    """

    size: Size
    counts: np.ndarray

    def __post_init__(self) -> None:
        if self.counts.min(initial=0) < 0 or int(self.counts.sum()) != self.size[0] * self.size[1]:
            raise ValueError(
                f"run lengths must not be negative and must add up to {self.size[0]} x {self.size[1]} pixels, got "
                f"{len(self.counts)} that add up to {int(self.counts.sum())}"
            )
        object.__setattr__(self, "counts", self.counts.astype(np.int32, copy=False))

    @staticmethod
    def of(pixels: np.ndarray, size: Size | None = None, corner: tuple[int, int] = (0, 0)) -> Rle:
        """The run lengths of ``pixels`` (h, w), nonzero = object, which lie at ``corner`` (top, left) of a ``size`` image."""
        height, width = size = size or (pixels.shape[0], pixels.shape[1])
        columns = np.zeros((pixels.shape[1], pixels.shape[0] + 2), np.int8)
        columns[:, 1:-1] = pixels.T != 0
        changes = np.diff(columns, axis=1)
        # Of every run of ones in a column: its first pixel, and one past its last
        ends = np.zeros((2, np.count_nonzero(changes > 0)), np.int64)
        for row, change in zip(ends, (1, -1), strict=True):
            x, y = np.nonzero(changes == change)
            row[:] = (x + corner[1]) * height + y + corner[0]
        apart = np.ones(ends.shape[1] + 1, bool)  # a run that goes on at the top of the next column is one run
        apart[1:-1] = ends[0, 1:] != ends[1, :-1]
        edges = np.stack([ends[0][apart[:-1]], ends[1][apart[1:]]], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [height * width]]))
        return Rle(size, counts if counts[-1] or len(counts) == 1 else counts[:-1])

    def pixels(self) -> np.ndarray:
        """(H, W) uint8, 1 = object."""
        ones = (np.arange(len(self.counts)) % 2).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(ones, self.counts).reshape(self.size[::-1]).T)

    def area(self) -> int:
        """The number of the object's pixels."""
        return int(self.counts[1::2].sum())

    def hull(self) -> np.ndarray | None:
        """The (4,) float32 xyxy box around the object's pixels, without drawing them; None if it has none."""
        edges = np.cumsum(self.counts, dtype=np.int64)[: len(self.counts) // 2 * 2].reshape(-1, 2)
        edges = edges[edges[:, 0] < edges[:, 1]]
        if not len(edges):
            return None
        height, (first, last) = self.size[0], (edges[:, 0], edges[:, 1] - 1)
        full = bool((first // height != last // height).any())  # a run that goes on in the next column
        top, bottom = (0, height) if full else (int((first % height).min()), int((last % height).max()) + 1)
        return np.array([first[0] // height, top, last[-1] // height + 1, bottom], np.float32)


Mask = Rings | Rle


def unpacked(text: str) -> np.ndarray:
    """The run lengths (R,) int64 in COCO's compressed text.

    Five bits per character from "0" on, the sixth says that more follow; from the fourth number on, what is written is the
    difference to the number two places before.

    Raises:
        ValueError: if a character is none of these, or the text ends within a number.

    Source: the COCO API's mask format.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > _MOST_BITS:
            raise ValueError(f"compressed run lengths are short numbers in characters '0' to 'o', got {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end within a number; the text was cut off")
    return np.array(counts, np.int64)


def packed(counts: np.ndarray) -> str:
    """COCO's compressed text of run lengths (R,); :func:`unpacked` gives them back."""
    text = ""
    differences = np.array(counts, np.int64)
    differences[3:] -= counts[1:-2]
    for value in differences.tolist():
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def draw_mask(mask: Mask, size: Size) -> np.ndarray:
    """(H, W) uint8: 1 where a pixel's centre lies in the mask, so an outline is neither thinner nor thicker than it is."""
    if isinstance(mask, Rle):
        return mask.pixels()
    pixels = np.zeros(size, np.uint8)
    for ring in mask:
        _add_ring(pixels, ring)
    return pixels


def _add_ring(pixels: np.ndarray, ring: np.ndarray) -> None:
    """Paints the ring by the even-odd rule: a pixel is inside when an odd number of edges lie to the left of its centre."""
    height, width = pixels.shape
    left, top = np.clip(np.floor(ring.min(axis=0)), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(ring.max(axis=0)), 0, (width, height)).astype(int).tolist()
    (x1, y1), (x2, y2) = ring.T, _next(ring).T
    centres = np.arange(top, bottom)[:, None] + 0.5
    rows, edges = np.nonzero((y1 <= centres) != (y2 <= centres))
    x = x1[edges] + (centres[rows, 0] - y1[edges]) * ((x2 - x1)[edges] / (y2 - y1)[edges])
    toggles = np.zeros((bottom - top, right - left + 1), np.int64)
    np.add.at(toggles, (rows, np.clip(np.ceil(x - 0.5) - left, 0, right - left).astype(np.int64)), 1)
    pixels[top:bottom, left:right] |= (np.cumsum(toggles[:, :-1], axis=1) % 2).astype(np.uint8)


def _next(values: np.ndarray) -> np.ndarray:
    """The values of the next corner, for each corner of a ring."""
    return np.concatenate([values[1:], values[:1]])  # np.roll takes five times as long


def move_mask(mask: Mask, a: np.ndarray, size: Size) -> Mask:
    """The mask after its image was moved by ``a`` (2, 3) into a window of ``size``, cut at the window's borders.

    Polygons stay polygons, so they move without loss. Run lengths are warped like a label map: nearest neighbour.
    """
    if isinstance(mask, Rle):
        return Rle.of(affine.warp(mask.pixels(), a, size, "nearest", 0))
    rings = (_clipped(ring @ a[:, :2].T + a[:, 2], size) for ring in mask)
    return tuple(ring for ring in rings if len(ring))


def _clipped(ring: np.ndarray, size: Size) -> np.ndarray:
    """The ring inside 0..width, 0..height; (0, 2) where nothing is left. Source: Sutherland and Hodgman 1974."""
    if (ring.min(axis=0) >= 0).all() and (ring.max(axis=0) <= (size[1], size[0])).all():
        return ring
    for axis, limit, sign in ((0, 0, -1), (0, size[1], 1), (1, 0, -1), (1, size[0], 1)):
        beyond = sign * (ring[:, axis] - limit)
        inside = beyond <= 0
        if inside.all():
            continue
        after, beyond_after = _next(ring), _next(beyond)
        crosses = inside != (beyond_after <= 0)
        share = np.divide(beyond, beyond - beyond_after, out=np.zeros(len(ring)), where=crosses)
        corners = np.stack([ring, ring + share[:, None] * (after - ring)], axis=1)
        corners[:, 1, axis] = limit  # exactly, not up to rounding
        ring = corners[np.stack([inside, crosses], axis=1)]
    return ring


def mask_hull(mask: Mask, size: Size) -> np.ndarray | None:
    """The (4,) float32 xyxy box around the drawn pixels of a mask in an image of ``size``; None if there are none."""
    if isinstance(mask, Rle):
        return mask.hull()
    y, x = np.nonzero(draw_mask(mask, size))
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32) if len(x) else None
