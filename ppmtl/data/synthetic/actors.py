"""What moves in a street: buses, lorries, trams, people, cyclists and motorcyclists. Cars are in vehicles.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ppmtl.data.synthetic.classes import BICYCLE, BUS, MOTORCYCLE, PERSON, RIDER, TRAIN, TRUCK
from ppmtl.data.synthetic.draw import Canvas, Color, jitter, mix, scaled
from ppmtl.data.synthetic.solids import (
    GLASS,
    RUBBER,
    View,
    across,
    box_profile,
    draw_solid,
    draw_wheel,
    flat,
    ground_shadow,
    rect,
    ring,
)

_CLOTHES: tuple[Color, ...] = (
    (178, 44, 52), (44, 76, 140), (60, 62, 68), (214, 210, 200), (62, 110, 74), (210, 150, 60), (120, 84, 140),
)  # fmt: skip
_SKIN: tuple[Color, ...] = ((232, 190, 160), (198, 150, 116), (128, 88, 64), (96, 66, 50))


def _pick(rng: np.random.Generator, colors: tuple[Color, ...], spread: float = 14) -> Color:
    return jitter(rng, colors[int(rng.integers(len(colors)))], spread)


def _lamps(canvas: Canvas, view: View, x: float, half: float, level: float, color: Color, lit: bool) -> None:
    for sign in (-1, 1):
        z = sign * (half - 0.28)
        canvas.poly(view.pixels(across(rect(z - 0.16, level - 0.09, z + 0.16, level + 0.09), x)), color)
        if lit:
            canvas.glow(view.pixels((x, level, z)), 0.45 * view.scale_at((x, 0, 0)), color)


def _facing(view: View, length: float) -> str:
    if view.sees((length, 1.0, 0), (1, 0, 0)):
        return "front"
    return "rear" if view.sees((0, 1.0, 0), (-1, 0, 0)) else "side"


def _seen_sides(view: View, length: float, half: float) -> list[float]:
    return [s for s in (1.0, -1.0) if view.sees((length / 2, 1.0, s * half), (0, 0, s))]


def draw_bus(canvas: Canvas, view: View, *, lit: bool) -> float:
    """Draws a bus and returns its length in metres."""
    rng = canvas.rng
    length, half, top = float(rng.uniform(8.5, 11.5)), 1.25, float(rng.uniform(3.0, 3.3))
    paint = _pick(rng, ((236, 176, 40), (208, 60, 44), (60, 140, 190), (96, 170, 110)))
    glass = (250, 226, 160) if lit else scaled(GLASS, 1.15)
    ground_shadow(canvas, view, length, 2 * half)
    draw_solid(canvas, view, box_profile(length, 2 * half, 0.32, top), (paint, scaled(paint, 1.05), paint), paint, BUS)
    for sign in _seen_sides(view, length, half):
        edges = np.linspace(0.3, length - 0.3, 8)
        panes = [flat(rect(a + 0.07, 0.48 * top, b - 0.07, 0.84 * top), sign * half)
                 for a, b in zip(edges[:-1], edges[1:], strict=True)]  # fmt: skip
        canvas.polys(view.pixels(np.array(panes)), glass)
        canvas.poly(view.pixels(flat(rect(0, 0.36 * top, length, 0.42 * top), sign * half)), (240, 240, 236))
        canvas.poly(
            view.pixels(flat(rect(0.66 * length, 0.14 * top, 0.78 * length, 0.84 * top), sign * half)), (40, 46, 54)
        )
        for x in (0.2 * length, 0.84 * length):
            draw_wheel(canvas, view, x, 0.48, sign * half, "disc", BUS)
    facing = _facing(view, length)
    if facing != "side":
        x = length if facing == "front" else 0.0
        low = 0.40 if facing == "front" else 0.56
        canvas.poly(view.pixels(across(rect(-half + 0.12, low * top, half - 0.12, 0.82 * top), x)), glass)
        canvas.poly(view.pixels(across(rect(-0.8, 0.86 * top, 0.8, 0.96 * top), x)), (30, 30, 32))
        canvas.poly(view.pixels(across(rect(-0.6, 0.885 * top, 0.5, 0.935 * top), x)), (250, 170, 40))
        canvas.poly(view.pixels(across(rect(-half, 0.32, half, 0.5), x)), (46, 46, 50))
        lamp = (255, 246, 214) if facing == "front" else (190, 30, 28)
        _lamps(canvas, view, x, half, 0.75, lamp, lit)
    return length


def draw_truck(canvas: Canvas, view: View, *, lit: bool) -> float:
    """Draws a lorry with a box or a tipper body and returns its length in metres."""
    rng = canvas.rng
    cab, cargo, half = 1.9, float(rng.uniform(4.2, 6.5)), 1.22
    length, top = cab + cargo + 0.25, float(rng.uniform(2.9, 3.5))
    tipper = rng.random() < 0.35
    paint = _pick(rng, ((200, 52, 44), (48, 96, 160), (226, 226, 222), (60, 120, 84), (230, 140, 40)))
    load = _pick(rng, ((232, 232, 228), (196, 200, 206), (120, 150, 176), (206, 178, 130)))
    ground_shadow(canvas, view, length, 2 * half)
    body = (box_profile(cargo, 2 * half, 0.95, (0.62 if tipper else 1.0) * top), scaled(load, 0.72) if tipper else load)
    front = np.array([[cargo + 0.25, 0.45, half * 0.94], [cargo + 0.25, 0.8 * top, half * 0.94],
                      [length - 0.35, 0.8 * top, half * 0.94], [length, 0.42 * top, half * 0.94],
                      [length, 0.45, half * 0.94]])  # fmt: skip
    frame = box_profile(length - 0.4, 1.7, 0.5, 0.95, 0.15)
    draw_solid(canvas, view, frame, [(40, 40, 44)] * 3, (40, 40, 44), TRUCK)

    def draw_cab() -> None:
        draw_solid(canvas, view, front, (paint, paint, scaled(GLASS, 1.2), paint), paint, TRUCK)
        for sign in _seen_sides(view, length, half):
            window = [
                (length - 1.25, 0.48 * top),
                (length - 1.25, 0.75 * top),
                (length - 0.45, 0.75 * top),
                (length - 0.2, 0.48 * top),
            ]
            canvas.poly(view.pixels(flat(window, sign * half * 0.94)), GLASS)

    def draw_body() -> None:
        draw_solid(canvas, view, body[0], [body[1]] * 3, body[1], TRUCK)
        for sign in _seen_sides(view, cargo, half):
            if tipper:
                for x in np.linspace(0.2, cargo - 0.2, 6):
                    rib = view.pixels(flat([(x, 1.0), (x, 0.61 * top)], sign * half))
                    canvas.line(rib, scaled(body[1], 0.6), 0.1 * view.scale_at((x, 1, sign * half)))
            else:
                stripe = rect(0.3, 0.60 * top, cargo - 0.3, 0.74 * top)
                canvas.poly(view.pixels(flat(stripe, sign * half)), mix(paint, load, 0.2))

    nose_first = view.sees((length, 1.0, 0), (1, 0, 0))
    for part in (draw_body, draw_cab) if nose_first else (draw_cab, draw_body):
        part()
    for sign in _seen_sides(view, length, half):
        for x in (0.9, 1.9, length - 0.95):
            draw_wheel(canvas, view, x, 0.5, sign * half, "disc", TRUCK)
    if nose_first:
        canvas.poly(view.pixels(across(rect(-0.8, 0.26 * top, 0.8, 0.38 * top), length)), (34, 34, 38))
        _lamps(canvas, view, length, half * 0.94, 0.62, (255, 246, 214), lit)
    elif view.sees((0, 1.0, 0), (-1, 0, 0)):
        middle = view.pixels(across([(0, 1.0), (0, (0.6 if tipper else 0.98) * top)], 0))
        canvas.line(middle, scaled(load, 0.5), 0.06 * view.scale_at((0, 1, 0)))
        for z in (-half + 0.1, half - 0.25):
            canvas.poly(
                view.pixels(across(rect(z, 0.98, z + 0.15, 0.96 * top if not tipper else 0.6 * top), 0)),
                scaled(load, 0.7),
            )
        _lamps(canvas, view, 0.0, half, 0.80, (190, 30, 28), lit)
        canvas.poly(view.pixels(across(rect(-half, 0.5, half, 0.62), 0)), (196, 40, 40))
        for z in (-0.95, 0.65):
            canvas.poly(view.pixels(across(rect(z, 0.0, z + 0.32, 0.55), 0)), RUBBER, TRUCK)
    return length


def draw_tram(canvas: Canvas, view: View, *, lit: bool) -> float:
    """Draws a tram with two-coloured sides and a pantograph and returns its length in metres."""
    rng = canvas.rng
    length, half, top = float(rng.uniform(13, 20)), 1.3, 3.5
    band = _pick(rng, ((30, 120, 96), (170, 30, 52), (40, 60, 140)))
    cream: Color = (236, 228, 202)
    glass = (250, 226, 160) if lit else (64, 82, 96)
    ground_shadow(canvas, view, length, 2 * half)
    shell = np.array([[0.0, 0.22, half], [0.0, 0.42 * top, half], [0.5, top, half * 0.9], [length - 0.5, top, half * 0.9],
                      [length, 0.42 * top, half], [length, 0.22, half]])  # fmt: skip
    draw_solid(canvas, view, shell, (band, glass, scaled(cream, 0.8), glass, band), cream, TRAIN)
    for sign in _seen_sides(view, length, half):
        z = sign * half
        canvas.poly(
            view.pixels(flat(rect(0, 0.22, length, 0.42 * top), z)), scaled(band, view.brightness((0, 0, sign)))
        )
        canvas.poly(view.pixels(flat(rect(0, 0.16 * top, length, 0.19 * top), z)), cream)
        edges = np.linspace(0.6, length - 0.6, 11)
        panes = [
            flat(rect(a + 0.1, 0.47 * top, b - 0.1, 0.80 * top), z) for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
        canvas.polys(view.pixels(np.array(panes)), glass)
        joint = view.pixels(flat(rect(0.49 * length, 0.22, 0.51 * length, 0.97 * top), z))
        canvas.poly(joint, (52, 52, 56))
    facing = _facing(view, length)
    if facing != "side":
        x = length if facing == "front" else 0.0
        stripe = across(
            [
                (-half, 0.2 * top),
                (0, 0.1 * top),
                (half, 0.2 * top),
                (half, 0.26 * top),
                (0, 0.16 * top),
                (-half, 0.26 * top),
            ],
            x,
        )
        canvas.poly(view.pixels(stripe), cream)
        _lamps(canvas, view, x, half, 0.34 * top, (255, 246, 214) if facing == "front" else (200, 30, 28), lit)
    mast = [(0.45 * length, top, 0), (0.53 * length, top + 0.6, 0), (0.45 * length, top + 1.1, 0)]
    canvas.line(view.pixels(mast), (40, 40, 44), 0.1 * view.scale_at(mast[0]), TRAIN)
    return length


def _limb(canvas: Canvas, points: ArrayLike, color: Color, width: float, label: int) -> None:
    canvas.line(points, color, max(width, 0.8), label)


def draw_person(canvas: Canvas, x: float, z: float, view: View) -> None:
    """Draws a standing or walking person at world (x, z)."""
    rng, camera = canvas.rng, view.camera
    tall = float(rng.uniform(1.6, 1.9)) if rng.random() < 0.85 else 1.25
    scale = camera.focal / z * tall / 1.75

    def at(right: float, up: float) -> np.ndarray:
        return camera.project((x + right * tall / 1.75, up * tall / 1.75, z))

    coat, trousers, skin = (
        _pick(rng, _CLOTHES),
        _pick(rng, ((46, 52, 72), (60, 56, 52), (96, 90, 82))),
        _pick(rng, _SKIN, 6),
    )
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
    canvas.disc(at(0.02 * side, 1.68), 0.115 * scale, _pick(rng, ((40, 30, 26), (96, 66, 40), (190, 160, 100))), PERSON)
    if rng.random() < 0.35:
        canvas.poly([at(side * 0.24, 0.95), at(side * 0.42, 0.95), at(side * 0.42, 0.6), at(side * 0.24, 0.6)],
                    _pick(rng, _CLOTHES), PERSON)  # fmt: skip


def draw_cycle(canvas: Canvas, view: View, *, motor: bool, ridden: bool, lit: bool) -> None:
    """Draws a bicycle or a motorcycle in the side plane of the view, with a rider where asked."""
    rng = canvas.rng
    label = MOTORCYCLE if motor else BICYCLE
    base, radius = (1.35, 0.32) if motor else (1.08, 0.35)
    scale = view.scale_at((base / 2, 0.5, 0))
    paint = _pick(rng, ((200, 40, 44), (40, 80, 170), (40, 42, 48), (60, 150, 90), (236, 180, 50)))

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


def _draw_rider(canvas: Canvas, at: object, scale: float, motor: bool) -> None:
    assert callable(at)
    rng = canvas.rng
    coat, trousers, skin = _pick(rng, _CLOTHES), _pick(rng, ((46, 52, 72), (60, 56, 52))), _pick(rng, _SKIN, 6)
    helmet = _pick(rng, ((220, 60, 50), (236, 236, 232), (30, 30, 34), (240, 200, 60)))
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
