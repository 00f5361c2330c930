"""Drawing with exact labels: one canvas that keeps a picture and its label map in step.

The picture is drawn at twice the wanted size and averaged down, which anti-aliases it; the label map is drawn with the
same polygons, hard, and sampled. Points are continuous pixel coordinates of the *final* picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ppmtl.structures import IGNORE_LABEL, Size

Color = tuple[float, float, float]
SUPERSAMPLE = 2
_SHIFT = 3  # OpenCV's fixed point: coordinates carry this many fractional bits
_BANK = 2048


@cache
def _texture_bank() -> np.ndarray:
    """Returns a (2048, 2048) int16 field in about -64..64 with detail at several scales; the same in every run."""
    rng = np.random.default_rng(20230601)
    field = np.zeros((512, 512), np.float32)
    for cells, weight in ((8, 0.8), (32, 0.9), (128, 1.0), (512, 0.8)):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        field += weight * cv2.resize(grid, (512, 512), interpolation=cv2.INTER_CUBIC)
    field = np.clip(field * 22, -64, 64).astype(np.int16)
    mirrored = np.block([[field, field[:, ::-1]], [field[::-1], field[::-1, ::-1]]])
    return np.tile(mirrored, (_BANK // 1024, _BANK // 1024))


def mix(a: Color, b: Color, share: float) -> Color:
    """Returns the colour between ``a`` (share 0) and ``b`` (share 1)."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def scaled(color: Color, factor: float) -> Color:
    """Returns the colour ``factor`` times as bright, clipped to 0..255."""
    return (min(color[0] * factor, 255.0), min(color[1] * factor, 255.0), min(color[2] * factor, 255.0))


def jitter(rng: np.random.Generator, color: Color, spread: float) -> Color:
    """Returns the colour with every channel moved by up to ``spread``, clipped to 0..255."""
    r, g, b = np.clip(np.asarray(color) + rng.uniform(-spread, spread, 3), 0, 255).tolist()
    return (r, g, b)


def pick(rng: np.random.Generator, colors: Sequence[Color], spread: float = 14) -> Color:
    """Returns one of the colours, jittered."""
    return jitter(rng, colors[int(rng.integers(len(colors)))], spread)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking along +Z; world X is right, Y up (0 = ground), all in metres."""

    focal: float
    centre: float
    horizon: float
    height: float

    def project(self, points: ArrayLike) -> np.ndarray:
        """Returns (..., 2) pixel coordinates of (..., 3) world points; points nearer than 0.3 m are held there."""
        world = np.asarray(points, np.float64)
        scale = self.focal / np.maximum(world[..., 2], 0.3)
        x = self.centre + scale * world[..., 0]
        y = self.horizon + scale * (self.height - world[..., 1])
        return np.stack([x, y], axis=-1)


@dataclass(frozen=True)
class Glow:
    """A light source: place and radius in final pixels, colour, and the picture's bytes there when it was drawn."""

    x: float
    y: float
    radius: float
    color: Color
    behind: bytes


class Canvas:
    """A picture and its label map under construction; far things are drawn first.

    Attributes:
        image: (2H, 2W, 3) uint8 RGB.
        label: (2H, 2W) uint8, 255 = not labelled.
        depth: metres from the camera of what is drawn now; haze mixes colours towards ``haze_color`` with it.
        glows: light sources, added after the light is dimmed.
        owner: (2H, 2W) uint16, drawn in step with the labels: which object a pixel belongs to, 1 is the first; 0 = scenery.
        objects: class id and colour of every object begun; some may be covered since.
        current: the object that is drawn now, 0 = scenery.
    """

    def __init__(self, size: Size, rng: np.random.Generator, haze_color: Color = (200, 205, 210), haze: float = 0.0):
        self.size = size
        self.image = np.zeros((size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE, 3), np.uint8)
        self.label = np.full(self.image.shape[:2], IGNORE_LABEL, np.uint8)
        self.owner = np.zeros(self.label.shape, np.uint16)
        self.objects: list[tuple[int, Color]] = []
        self.current = 0
        self.rng = rng
        self.haze_color, self.haze, self.depth = haze_color, haze, 0.0
        self.glows: list[Glow] = []

    def begin(self, label: int, color: Color) -> None:
        """Starts an object; what is labelled from now on belongs to it, until another begins or ``current`` is 0."""
        self.objects.append((label, color))
        self.current = len(self.objects)

    def _layers(self, label: int) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """The maps that a labelled shape is drawn into, each with its value."""
        return (self.label, label), (self.owner, self.current)

    def _tint(self, color: Color) -> Color:
        return mix(color, self.haze_color, 1.0 - float(np.exp(-self.haze * self.depth)))

    def _fixed(self, points: ArrayLike) -> np.ndarray:
        # Continuous coordinate c of pixel [i, i+1) is i - 0.5 in OpenCV's integer-centred grid. Clipping keeps points
        # of things that reach behind the camera inside int32.
        limit = 8.0 * max(self.image.shape)
        grid = np.asarray(points, np.float64) * SUPERSAMPLE - 0.5
        return np.rint(np.clip(grid, -limit, limit) * (1 << _SHIFT)).astype(np.int32)

    def poly(
        self,
        points: ArrayLike,
        color: Color,
        label: int | None = None,
        bottom: Color | None = None,
        texture: float = 0.0,
    ) -> None:
        """Fills one polygon (N, 2), as a vertical gradient to ``bottom`` and with a texture where asked."""
        fixed = self._fixed(points)
        if bottom is None and not texture:
            cv2.fillPoly(self.image, [fixed], self._tint(color), cv2.LINE_8, _SHIFT)
        else:
            self._rich_fill(fixed, self._tint(color), self._tint(bottom or color), texture)
        if label is not None:
            for layer, value in self._layers(label):
                cv2.fillPoly(layer, [fixed], value, cv2.LINE_8, _SHIFT)

    def _region(self, fixed: np.ndarray) -> tuple[slice, slice]:
        low = np.maximum(fixed.min(axis=0) // (1 << _SHIFT) - 1, 0)
        high = np.maximum(fixed.max(axis=0) // (1 << _SHIFT) + 2, 0)
        height, width = self.label.shape
        return slice(min(low[1], height), min(high[1], height)), slice(min(low[0], width), min(high[0], width))

    def _rich_fill(self, fixed: np.ndarray, top: Color, bottom: Color, texture: float) -> None:
        rows, columns = self._region(fixed)
        area = self.image[rows, columns]
        if area.size == 0:
            return
        mask = self._mask(fixed, rows, columns)
        first, last = fixed[:, 1].min() / (1 << _SHIFT), fixed[:, 1].max() / (1 << _SHIFT)
        share = np.clip((np.arange(rows.start, rows.stop) - first) / max(last - first, 1.0), 0, 1)[:, None, None]
        paint = (np.asarray(top) + (np.asarray(bottom) - np.asarray(top)) * share).astype(np.uint8)
        filled = np.ascontiguousarray(np.broadcast_to(paint, area.shape))
        if texture:
            height, width = area.shape[:2]
            top_row, left = self.rng.integers(0, [max(_BANK - height, 1), max(_BANK - width, 1)])
            grain = _texture_bank()[top_row : top_row + height, left : left + width]
            if grain.shape != (height, width):  # a picture beyond 1024 px on a side: repeat the bank
                grain = np.pad(grain, ((0, height - grain.shape[0]), (0, width - grain.shape[1])), mode="wrap")
            grain = (grain * np.int16(round(texture * 256))) >> 8  # int16: three times as fast as float here
            filled = cv2.add(filled, cv2.merge([grain, grain, grain]), dtype=cv2.CV_8U)
        cv2.copyTo(filled, mask, area)

    def _mask(self, fixed: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        offset = np.array([columns.start, rows.start], np.int32) << _SHIFT
        cv2.fillPoly(mask, [fixed - offset], 255, cv2.LINE_8, _SHIFT)
        return mask

    def polys(self, polygons: ArrayLike | Sequence[np.ndarray], color: Color, label: int | None = None) -> None:
        """Fills many polygons (K, N, 2) with one colour in one call."""
        fixed = [self._fixed(points) for points in np.asarray(polygons, np.float64)]
        for points in fixed:  # one at a time: overlapping polygons of one OpenCV call cancel out
            cv2.fillPoly(self.image, [points], self._tint(color), cv2.LINE_8, _SHIFT)
            if label is not None:
                for layer, value in self._layers(label):
                    cv2.fillPoly(layer, [points], value, cv2.LINE_8, _SHIFT)

    def line(
        self, points: ArrayLike, color: Color, width: float, label: int | None = None, *, closed: bool = False
    ) -> None:
        """Draws a polyline ``width`` pixels thick."""
        fixed, thickness = self._fixed(points), max(1, round(width * SUPERSAMPLE))
        cv2.polylines(self.image, [fixed], closed, self._tint(color), thickness, cv2.LINE_AA, _SHIFT)
        if label is not None:
            for layer, value in self._layers(label):
                cv2.polylines(layer, [fixed], closed, value, thickness, cv2.LINE_8, _SHIFT)

    def disc(self, centre: ArrayLike, radius: float, color: Color, label: int | None = None) -> None:
        """Fills a circle."""
        x, y = self._fixed(centre).tolist()
        fixed_radius = max(1, round(radius * SUPERSAMPLE * (1 << _SHIFT)))
        cv2.circle(self.image, (x, y), fixed_radius, self._tint(color), -1, cv2.LINE_8, _SHIFT)
        if label is not None:
            for layer, value in self._layers(label):
                cv2.circle(layer, (x, y), fixed_radius, value, -1, cv2.LINE_8, _SHIFT)

    def shadow(self, points: ArrayLike, factor: float, blur: float = 2.0) -> None:
        """Multiplies the picture by ``factor`` inside a polygon with soft edges ``blur`` pixels wide; no labels."""
        fixed = self._fixed(points)
        rows, columns = self._region(fixed)
        area = self.image[rows, columns]
        if area.size == 0:
            return
        kernel = 2 * round(blur * SUPERSAMPLE) + 1
        mask = cv2.blur(self._mask(fixed, rows, columns), (kernel, kernel))
        weight = (256 - mask.astype(np.uint16) * round((1 - factor) * 256) // 255)[..., None]
        area[:] = (area * weight) >> 8

    def sprite(self, rgba: np.ndarray, quad: ArrayLike, label: int | None = None) -> None:
        """Warps an (S, S, 4) uint8 sprite onto four corners (clockwise from top left); label where alpha >= 0.5."""
        side = float(len(rgba))
        corners = np.asarray(quad, np.float64) * SUPERSAMPLE
        height, width = self.label.shape
        left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, [width, height])
        right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, [width, height])
        if right <= left or bottom <= top:
            return
        source = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(source, (corners - [left, top] - 0.5).astype(np.float32))
        shrink = max(1.0, side / max(float(np.linalg.norm(corners[1] - corners[0])), 1.0))
        if shrink > 2:  # bilinear sampling of a much larger sprite would skip pixels
            small = max(4, round(side / shrink))
            rgba = cv2.resize(rgba, (small, small), interpolation=cv2.INTER_AREA)
            matrix = matrix @ np.diag([side / small, side / small, 1.0])
        warped = cv2.warpPerspective(rgba, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        alpha = warped[..., 3:].astype(np.float32) / 255
        tint = 1.0 - float(np.exp(-self.haze * self.depth))
        paint = warped[..., :3] * (1 - tint) + np.asarray(self.haze_color, np.float32) * tint
        area = self.image[top:bottom, left:right]
        area[:] = (area + (paint - area) * alpha + 0.5).astype(np.uint8)
        if label is not None:
            for layer, value in self._layers(label):
                layer[top:bottom, left:right][warped[..., 3] >= 128] = value

    def glow(self, centre: ArrayLike, radius: float, color: Color) -> None:
        """Remembers a light source; it shows when the scene is dark."""
        x, y = np.asarray(centre, np.float64).tolist()
        self.glows.append(Glow(x, y, radius, self._tint(color), self._at(x, y)))

    def uncovered(self, glow: Glow) -> bool:
        """Returns whether nothing was drawn over a light source since; one beyond the edge counts as uncovered."""
        return self._at(glow.x, glow.y) == glow.behind

    def _at(self, x: float, y: float) -> bytes:
        row, column = int(y * SUPERSAMPLE), int(x * SUPERSAMPLE)
        inside = 0 <= row < self.image.shape[0] and 0 <= column < self.image.shape[1]
        return self.image[row, column].tobytes() if inside else b""
