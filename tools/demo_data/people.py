"""People, cyclists and motorcyclists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from demo_data.classes import BICYCLE, MOTORCYCLE, PERSON, RIDER
from demo_data.draw import Camera, Canvas, Color, mix, pick, scaled
from demo_data.solids import RUBBER, View, flat, rect, ring

_CLOTHES: tuple[Color, ...] = (
    (178, 44, 52), (44, 76, 140), (60, 62, 68), (214, 210, 200), (62, 110, 74), (210, 150, 60), (120, 84, 140),
)  # fmt: skip
_SKIN: tuple[Color, ...] = ((232, 190, 160), (198, 150, 116), (128, 88, 64), (96, 66, 50))


def _limb(canvas: Canvas, points: ArrayLike, color: Color, width: float, label: int) -> None:
    canvas.line(points, color, max(width, 0.8), label)


def draw_person(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """Draws a standing or walking person at world (x, z)."""
    rng = canvas.rng
    tall = float(rng.uniform(1.6, 1.9)) if rng.random() < 0.85 else 1.25
    scale = camera.focal / z * tall / 1.75

    def at(right: float, up: float) -> np.ndarray:
        return camera.project((x + right * tall / 1.75, up * tall / 1.75, z))

    coat, trousers, skin = (
        pick(rng, _CLOTHES),
        pick(rng, ((46, 52, 72), (60, 56, 52), (96, 90, 82))),
        pick(rng, _SKIN, 6),
    )
    canvas.begin(PERSON, coat)
    canvas.shadow([at(-0.35, 0.06), at(0.35, 0.06), at(0.45, -0.06), at(-0.25, -0.06)], 0.55, 0.06 * scale)
    stride, side = float(rng.uniform(0.02, 0.28)), 1 if rng.random() < 0.5 else -1
    for sign in (-1, 1):
        _limb(
            canvas,
            [at(0.08 * sign, 0.85), at(sign * (0.07 + stride), 0.05)],
            scaled(trousers, 0.85 + 0.15 * sign),
            0.17 * scale,
            PERSON,
        )
        _limb(
            canvas,
            [at(0.2 * sign, 1.38), at(sign * (0.26 + 0.4 * stride), 0.85)],
            scaled(coat, 0.8),
            0.11 * scale,
            PERSON,
        )
    long_coat = 0.55 if rng.random() < 0.25 else 0.82
    torso = [at(-0.23, 1.42), at(-0.1, 1.5), at(0.1, 1.5), at(0.23, 1.42), at(0.19, long_coat), at(-0.19, long_coat)]
    canvas.poly(torso, scaled(coat, 1.1), PERSON, bottom=scaled(coat, 0.8))
    canvas.disc(at(0, 1.62), 0.13 * scale, skin, PERSON)
    canvas.disc(at(0.02 * side, 1.68), 0.115 * scale, pick(rng, ((40, 30, 26), (96, 66, 40), (190, 160, 100))), PERSON)
    if rng.random() < 0.35:
        canvas.poly([at(side * 0.24, 0.95), at(side * 0.42, 0.95), at(side * 0.42, 0.6), at(side * 0.24, 0.6)],
                    pick(rng, _CLOTHES), PERSON)  # fmt: skip


def draw_cycle(canvas: Canvas, view: View, *, motor: bool, ridden: bool, lit: bool) -> None:
    """Draws a bicycle or a motorcycle in the side plane of the view, with a rider where asked."""
    rng = canvas.rng
    label = MOTORCYCLE if motor else BICYCLE
    base, radius = (1.35, 0.32) if motor else (1.08, 0.35)
    scale = view.scale_at((base / 2, 0.5, 0))
    paint = pick(rng, ((200, 40, 44), (40, 80, 170), (40, 42, 48), (60, 150, 90), (236, 180, 50)))

    canvas.begin(label, paint)

    def at(points: ArrayLike) -> np.ndarray:
        return view.pixels(flat(points, 0.0))

    canvas.shadow(
        view.pixels([[-0.4, 0, -0.25], [-0.4, 0, 0.25], [base + 0.4, 0, 0.25], [base + 0.4, 0, -0.25]]),
        0.5,
        0.06 * scale,
    )
    for x in (0.0, base):
        if motor:
            canvas.poly(at(ring(x, radius, radius)), RUBBER, label)
            canvas.poly(at(ring(x, radius, radius * 0.45)), (150, 152, 158))
        else:
            # The disc between the spokes belongs to the bicycle, as in Cityscapes' outlines
            canvas.poly(at(ring(x, radius, radius)), (126, 128, 130), label)
            canvas.line(at(ring(x, radius, radius * 0.92)), RUBBER, max(0.07 * scale, 0.9), label, closed=True)
    if motor:
        body = [
            (-0.35, 0.72),
            (0.3, 0.62),
            (0.55, 0.8),
            (1.0, 0.92),
            (1.15, 0.72),
            (0.95, 0.34),
            (0.3, 0.3),
            (0.1, 0.5),
        ]
        canvas.poly(at(body), paint, label, bottom=scaled(paint, 0.5))
        canvas.poly(at([(0.3, 0.3), (0.9, 0.34), (0.85, 0.58), (0.4, 0.55)]), (70, 72, 78))
        canvas.poly(at([(-0.4, 0.74), (0.45, 0.70), (0.45, 0.82), (-0.35, 0.86)]), (30, 28, 30), label)
        canvas.line(at([(base, radius), (1.12, 0.9), (1.0, 1.08)]), (60, 62, 68), 0.09 * scale, label)
        canvas.line(at([(-0.3, 0.32), (0.5, 0.32)]), (180, 182, 188), 0.09 * scale, label)
        canvas.poly(at(rect(1.1, 0.82, 1.28, 1.0)), (255, 248, 220), label)
        if lit:
            canvas.glow(at([(1.2, 0.9)])[0], 0.3 * scale, (255, 240, 200))
    else:
        hub, saddle, head = (0.42, 0.32), (0.34, 0.86), (0.9, 0.86)
        canvas.poly(at([(0, radius), saddle, head, hub]), mix(paint, (120, 122, 124), 0.55), label)
        for bar in (
            [(0, radius), hub, head, saddle, hub],
            [(0, radius), saddle],
            [head, (base, radius)],
            [head, (0.88, 1.02), (1.0, 1.06)],
        ):
            canvas.line(at(bar), paint, max(0.07 * scale, 1.0), label)
        canvas.line(at([(0.22, 0.9), (0.46, 0.9)]), (24, 24, 26), max(0.09 * scale, 1.0), label)
    if ridden:
        _draw_rider(canvas, at, scale, motor)


def _draw_rider(canvas: Canvas, at: Callable[[ArrayLike], np.ndarray], scale: float, motor: bool) -> None:
    rng = canvas.rng
    coat, trousers, skin = pick(rng, _CLOTHES), pick(rng, ((46, 52, 72), (60, 56, 52))), pick(rng, _SKIN, 6)
    helmet = pick(rng, ((220, 60, 50), (236, 236, 232), (30, 30, 34), (240, 200, 60)))
    canvas.begin(RIDER, coat)
    hip, shoulder, hand = (
        ((0.05, 0.86), (0.36, 1.42), (0.98, 1.08)) if motor else ((0.32, 0.95), (0.58, 1.48), (0.94, 1.08))
    )
    knee, foot = ((0.55, 0.80), (0.42, 0.36)) if motor else ((0.66, 0.72), (0.46, 0.22))
    _limb(canvas, at([hip, knee, foot]), trousers, 0.17 * scale, RIDER)
    x, y = shoulder
    torso = [(hip[0] - 0.14, hip[1]), (x - 0.17, y - 0.02), (x, y + 0.08), (x + 0.16, y - 0.06), (hip[0] + 0.2, hip[1])]
    canvas.poly(at(torso), scaled(coat, 1.08), RIDER, bottom=scaled(coat, 0.8))
    _limb(canvas, at([(x, y - 0.06), (x + 0.2, y - 0.4), hand]), scaled(coat, 0.75), 0.12 * scale, RIDER)
    canvas.poly(at(ring(x + 0.1, y + 0.22, 0.14)), skin, RIDER)
    canvas.poly(at(ring(x + 0.08, y + 0.27, 0.15)), helmet, RIDER)
