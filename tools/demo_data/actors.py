"""The large vehicles of a street: buses, lorries and trams. Cars are in vehicles.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from demo_data.classes import BUS, TRAIN, TRUCK
from demo_data.draw import Canvas, Color, mix, pick, scaled
from demo_data.solids import GLASS, RUBBER, View, across, box_profile, draw_solid, draw_wheel, flat, ground_shadow, rect


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
    paint = pick(rng, ((236, 176, 40), (208, 60, 44), (60, 140, 190), (96, 170, 110)))
    glass = (250, 226, 160) if lit else scaled(GLASS, 1.15)
    canvas.begin(BUS, paint)
    ground_shadow(canvas, view, length, 2 * half)
    draw_solid(canvas, view, box_profile(length, 2 * half, 0.32, top), (paint, scaled(paint, 1.05), paint), paint, BUS)
    for sign in _seen_sides(view, length, half):
        edges = np.linspace(0.3, length - 0.3, 8)
        panes = [flat(rect(a + 0.07, 0.48 * top, b - 0.07, 0.84 * top), sign * half)
                 for a, b in pairwise(edges.tolist())]  # fmt: skip
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
    paint = pick(rng, ((200, 52, 44), (48, 96, 160), (226, 226, 222), (60, 120, 84), (230, 140, 40)))
    load = pick(rng, ((232, 232, 228), (196, 200, 206), (120, 150, 176), (206, 178, 130)))
    canvas.begin(TRUCK, paint)
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
    band = pick(rng, ((30, 120, 96), (170, 30, 52), (40, 60, 140)))
    cream: Color = (236, 228, 202)
    glass = (250, 226, 160) if lit else (64, 82, 96)
    canvas.begin(TRAIN, band)
    ground_shadow(canvas, view, length, 2 * half)
    shell = np.array([[0.0, 0.22, half], [0.0, 0.42 * top, half], [0.5, top, half * 0.9],
                      [length - 0.5, top, half * 0.9], [length, 0.42 * top, half], [length, 0.22, half]])  # fmt: skip
    draw_solid(canvas, view, shell, (band, glass, scaled(cream, 0.8), glass, band), cream, TRAIN)
    for sign in _seen_sides(view, length, half):
        z = sign * half
        canvas.poly(
            view.pixels(flat(rect(0, 0.22, length, 0.42 * top), z)), scaled(band, view.brightness((0, 0, sign)))
        )
        canvas.poly(view.pixels(flat(rect(0, 0.16 * top, length, 0.19 * top), z)), cream)
        edges = np.linspace(0.6, length - 0.6, 11)
        panes = [flat(rect(a + 0.1, 0.47 * top, b - 0.1, 0.80 * top), z) for a, b in pairwise(edges.tolist())]
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
