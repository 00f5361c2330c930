"""Traffic signs by TT100K name: each name is one pictogram, drawn from a family's shape and colours plus a glyph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from demo_data.draw import Color

# The 45 TT100K classes with enough examples, in the order of the challenge's annotation files
SIGN_NAMES: tuple[str, ...] = (
    "i2", "i4", "i5", "il100", "il60", "il80", "io", "ip", "p10", "p11", "p12", "p19", "p23", "p26", "p27", "p3",
    "p5", "p6", "pg", "ph4", "ph4.5", "ph5", "pl100", "pl120", "pl20", "pl30", "pl40", "pl5", "pl50", "pl60", "pl70",
    "pl80", "pm20", "pm30", "pm55", "pn", "pne", "po", "pr40", "w13", "w32", "w55", "w57", "w59", "wo",
)  # fmt: skip
# Which names a smaller request keeps: families take turns, the most different signs come first
_PICK_ORDER: tuple[str, ...] = (
    "pl40", "i5", "w57", "pn", "ip", "pne", "pg", "il60", "p11", "w13", "pr40", "p23", "i2", "wo", "pl80", "ph4",
    "pm20", "p26", "w32", "i4", "pl5", "p5", "w59", "il100", "p6", "io", "pl120", "p12", "w55", "po", "pl60", "p19",
    "ph5", "pm55", "il80", "p10", "pl30", "p3", "p27", "pl100", "ph4.5", "pm30", "pl50", "pl20", "pl70",
)  # fmt: skip
SPRITE_SIDE = 160

_RED, _BLUE, _YELLOW = (206, 24, 34), (22, 84, 188), (250, 204, 36)
_WHITE, _BLACK, _GREY = (246, 246, 244), (22, 22, 24), (120, 122, 126)
_SHIFT = 4

Strokes = list[tuple[tuple[float, float], ...]]
# Glyphs as polylines in a unit square, x right, y down. Generic drawings, not copies of the standard's artwork.
_GLYPHS: dict[str, Strokes] = {
    "right": [((0.25, 0.8), (0.25, 0.4), (0.7, 0.4)), ((0.55, 0.22), (0.78, 0.4), (0.55, 0.58))],
    "left": [((0.75, 0.8), (0.75, 0.4), (0.3, 0.4)), ((0.45, 0.22), (0.22, 0.4), (0.45, 0.58))],
    "uturn": [((0.72, 0.8), (0.72, 0.35), (0.6, 0.22), (0.42, 0.22), (0.3, 0.35), (0.3, 0.7)),
              ((0.14, 0.52), (0.3, 0.74), (0.46, 0.52))],
    "keepright": [((0.2, 0.2), (0.75, 0.75)), ((0.78, 0.4), (0.78, 0.78), (0.4, 0.78))],
    "cross": [((0.5, 0.12), (0.5, 0.88)), ((0.15, 0.55), (0.85, 0.55))],
    "merge": [((0.4, 0.12), (0.4, 0.9)), ((0.8, 0.2), (0.78, 0.45), (0.42, 0.66))],
    "mark": [((0.5, 0.12), (0.5, 0.6)), ((0.5, 0.84), (0.5, 0.86))],
    "walker": [((0.5, 0.14), (0.52, 0.16)), ((0.5, 0.3), (0.48, 0.58), (0.28, 0.9)), ((0.48, 0.58), (0.7, 0.88)),
               ((0.24, 0.52), (0.48, 0.34), (0.74, 0.52))],
    "children": [((0.3, 0.2), (0.31, 0.22)), ((0.3, 0.38), (0.3, 0.6), (0.16, 0.9)), ((0.3, 0.6), (0.42, 0.9)),
                 ((0.3, 0.42), (0.7, 0.5)), ((0.7, 0.32), (0.71, 0.34)), ((0.7, 0.5), (0.7, 0.66), (0.58, 0.9)),
                 ((0.7, 0.66), (0.84, 0.9))],
    "digger": [((0.3, 0.16), (0.31, 0.18)), ((0.32, 0.34), (0.42, 0.6), (0.24, 0.9)), ((0.42, 0.6), (0.54, 0.9)),
               ((0.3, 0.36), (0.6, 0.5), (0.74, 0.72)), ((0.62, 0.9), (0.78, 0.72), (0.94, 0.9))],
    "car": [((0.08, 0.62), (0.16, 0.42), (0.32, 0.26), (0.68, 0.26), (0.84, 0.42), (0.92, 0.62), (0.08, 0.62)),
            ((0.24, 0.78), (0.26, 0.78)), ((0.74, 0.78), (0.76, 0.78)), ((0.1, 0.52), (0.9, 0.52))],
    "lorry": [((0.05, 0.3), (0.6, 0.3), (0.6, 0.7), (0.05, 0.7), (0.05, 0.3)),
              ((0.6, 0.44), (0.8, 0.44), (0.94, 0.58), (0.94, 0.7), (0.6, 0.7)), ((0.2, 0.84), (0.22, 0.84)),
              ((0.78, 0.84), (0.8, 0.84)), ((0.08, 0.5), (0.58, 0.5))],
    "bus": [((0.16, 0.12), (0.84, 0.12), (0.84, 0.8), (0.16, 0.8), (0.16, 0.12)), ((0.18, 0.46), (0.82, 0.46)),
            ((0.26, 0.92), (0.28, 0.92)), ((0.72, 0.92), (0.74, 0.92)), ((0.5, 0.14), (0.5, 0.44))],
    "cycle": [((0.06, 0.66), (0.14, 0.5), (0.3, 0.5), (0.38, 0.66), (0.3, 0.82), (0.14, 0.82), (0.06, 0.66)),
              ((0.62, 0.66), (0.7, 0.5), (0.86, 0.5), (0.94, 0.66), (0.86, 0.82), (0.7, 0.82), (0.62, 0.66)),
              ((0.22, 0.66), (0.36, 0.34), (0.66, 0.34), (0.78, 0.66)), ((0.36, 0.34), (0.5, 0.66), (0.66, 0.34))],
    "motor": [((0.14, 0.72), (0.3, 0.72)), ((0.7, 0.72), (0.86, 0.72)), ((0.14, 0.78), (0.22, 0.5), (0.6, 0.5)),
              ((0.86, 0.78), (0.66, 0.3), (0.5, 0.3)), ((0.22, 0.5), (0.5, 0.62), (0.72, 0.5)),
              ((0.5, 0.14), (0.42, 0.42))],
    "horn": [((0.1, 0.42), (0.3, 0.42), (0.72, 0.18), (0.72, 0.82), (0.3, 0.58), (0.1, 0.58), (0.1, 0.42)),
             ((0.86, 0.36), (0.92, 0.5), (0.86, 0.64))],
    "flame": [((0.5, 0.1), (0.3, 0.4), (0.36, 0.6), (0.5, 0.66), (0.66, 0.6), (0.7, 0.4), (0.5, 0.1)),
              ((0.14, 0.84), (0.86, 0.84))],
    "none": [],
    "up": [((0.5, 0.9), (0.5, 0.2)), ((0.26, 0.42), (0.5, 0.14), (0.74, 0.42))],
}  # fmt: skip
_BANNED = {"p10": "car", "p11": "horn", "p12": "motor", "p19": "right", "p23": "left", "p26": "lorry", "p27": "flame",
           "p3": "bus", "p5": "uturn", "p6": "cycle", "po": "none"}  # fmt: skip
_WARNED = {"w13": "cross", "w32": "digger", "w55": "children", "w57": "walker", "w59": "merge", "wo": "mark"}
_TOLD = {"i2": "cycle", "i4": "car", "i5": "keepright", "io": "up"}


def sign_names(count: int) -> tuple[str, ...]:
    """Returns ``count`` of the 45 names, spread over the families, in the challenge's order.

    Raises:
        ValueError: if ``count`` is not in 1..45.
    """
    if not 1 <= count <= len(SIGN_NAMES):
        raise ValueError(f"sign_classes must be in 1..{len(SIGN_NAMES)}, got {count}")
    chosen = set(_PICK_ORDER[:count])
    return tuple(name for name in SIGN_NAMES if name in chosen)


@dataclass(frozen=True)
class Sign:
    """One sign face.

    Attributes:
        sprite: (160, 160, 4) uint8 RGBA.
        outline: (N, 2) the plate's edge in 0..1 of the sprite, from which the exact box is computed.
    """

    sprite: np.ndarray
    outline: np.ndarray


@cache
def sign_face(name: str) -> Sign:
    """Returns the drawn face of one TT100K name; a pure function, so it is drawn once per process."""
    outline = _outline(name)
    face = np.zeros((2 * SPRITE_SIDE, 2 * SPRITE_SIDE, 4), np.uint8)
    pen = _Pen(face)
    pen.fill(outline, (*_WHITE, 255))
    _paint(pen, name, outline)
    plate = np.zeros(face.shape[:2], np.uint8)
    cv2.fillPoly(plate, [pen.fixed(outline)], 255, cv2.LINE_8, _SHIFT)
    face[..., 3] = plate
    face.flags.writeable = False
    return Sign(cv2.resize(face, (SPRITE_SIDE, SPRITE_SIDE), interpolation=cv2.INTER_AREA), outline)


def _outline(name: str) -> np.ndarray:
    if name.startswith("w"):
        return np.array([[0.5, 0.06], [0.97, 0.9], [0.03, 0.9]])
    if name == "pg":
        return np.array([[0.03, 0.1], [0.97, 0.1], [0.5, 0.94]])
    if name == "ip":
        return np.array([[0.06, 0.06], [0.94, 0.06], [0.94, 0.94], [0.06, 0.94]])
    return _circle(0.47)


def _circle(radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return 0.5 + radius * np.stack([np.cos(angle), np.sin(angle)], -1)


class _Pen:
    """Draws in the unit square of one RGBA face."""

    def __init__(self, face: np.ndarray):
        self.face, self.side = face, len(face)

    def fixed(self, points: np.ndarray) -> np.ndarray:
        return np.rint((np.asarray(points) * self.side - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, points: np.ndarray, color: tuple[float, ...]) -> None:
        cv2.fillPoly(self.face, [self.fixed(points)], (*color[:3], 255), cv2.LINE_AA, _SHIFT)

    def strokes(self, strokes: Strokes, color: Color, place: tuple[float, float, float], width: float) -> None:
        """Draws polylines into the square at ``place`` = (left, top, side)."""
        for points in strokes:
            moved = np.asarray(points) * place[2] + place[:2]
            thickness = max(1, round(width * self.side))
            cv2.polylines(self.face, [self.fixed(moved)], False, (*color, 255), thickness, cv2.LINE_AA, _SHIFT)

    def text(self, text: str, color: Color, height: float, middle: float = 0.5) -> None:
        """Writes centred text that is at most 0.66 wide."""
        (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
        scale = min(height * self.side / tall, 0.66 * self.side / width)
        thick = max(1, round(scale * tall * 0.2))
        left = round(self.side / 2 - width * scale / 2)
        base = round(middle * self.side + tall * scale / 2)
        cv2.putText(self.face, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, (*color, 255), thick, cv2.LINE_AA)


def _paint(pen: _Pen, name: str, outline: np.ndarray) -> None:
    middle = outline.mean(axis=0)
    if name.startswith("w"):
        pen.fill(outline, _BLACK)
        pen.fill(middle + (outline - middle) * 0.86, _YELLOW)
        pen.strokes(_GLYPHS[_WARNED[name]], _BLACK, (0.31, 0.4, 0.40), 0.055)
    elif name == "pg":
        pen.fill(outline, _RED)
        pen.fill(middle + (outline - middle) * 0.58, _WHITE)
    elif name == "ip":
        pen.fill(outline, _BLUE)
        pen.fill(np.array([[0.5, 0.14], [0.87, 0.8], [0.13, 0.8]]), _WHITE)
        pen.strokes(_GLYPHS["walker"], _BLACK, (0.33, 0.36, 0.36), 0.05)
    elif name.startswith("i"):
        pen.fill(_circle(0.44), _BLUE)
        if name.startswith("il"):
            pen.text(name[2:], _WHITE, 0.40)
        else:
            glyph = _TOLD[name]
            pen.strokes(_GLYPHS[glyph], _WHITE, (0.18, 0.18, 0.64), 0.04 if glyph == "cycle" else 0.075)
    elif name == "pne":
        pen.fill(outline, _RED)
        pen.fill(np.array([[0.18, 0.41], [0.82, 0.41], [0.82, 0.59], [0.18, 0.59]]), _WHITE)
    elif name == "pn":
        pen.fill(outline, _RED)
        pen.fill(_circle(0.37), _BLUE)
        pen.strokes([((0.22, 0.22), (0.78, 0.78)), ((0.78, 0.22), (0.22, 0.78))], _RED, (0, 0, 1), 0.1)
    elif name == "pr40":
        pen.fill(outline, _GREY)
        pen.fill(_circle(0.41), _WHITE)
        pen.text("40", _GREY, 0.34)
        pen.strokes([((0.72, 0.2), (0.2, 0.72)), ((0.8, 0.28), (0.28, 0.8))], _BLACK, (0, 0, 1), 0.03)
    else:
        _paint_ban(pen, name, outline)


def _paint_ban(pen: _Pen, name: str, outline: np.ndarray) -> None:
    pen.fill(outline, _RED)
    pen.fill(_circle(0.36), _WHITE)
    if name.startswith("pl"):
        pen.text(name[2:], _BLACK, 0.38)
    elif name.startswith("pm"):
        pen.text(name[2:] + "t", _BLACK, 0.26, 0.44)
        pen.strokes([((0.3, 0.66), (0.7, 0.66))], _BLACK, (0, 0, 1), 0.05)
    elif name.startswith("ph"):
        pen.text(name[2:] + "m", _BLACK, 0.22, 0.5)
        pen.fill(np.array([[0.4, 0.2], [0.6, 0.2], [0.5, 0.31]]), _BLACK)
        pen.fill(np.array([[0.4, 0.8], [0.6, 0.8], [0.5, 0.69]]), _BLACK)
    else:
        glyph = _BANNED[name]
        pen.strokes(_GLYPHS[glyph], _BLACK, (0.24, 0.24, 0.52), 0.03 if glyph == "cycle" else 0.05)
        if name != "po":
            pen.strokes([((0.24, 0.24), (0.76, 0.76))], _RED, (0, 0, 1), 0.055)
