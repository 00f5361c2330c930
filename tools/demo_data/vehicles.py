"""Draws a car of a class; the classes are in bodies.py."""

from __future__ import annotations

import numpy as np

from demo_data.bodies import Shape, VehicleClass, shape_of
from demo_data.draw import Canvas, Color, mix, scaled
from demo_data.solids import GLASS, View, across, draw_solid, draw_wheel, flat, ground_shadow, rect

PAINTS: tuple[Color, ...] = (
    (196, 36, 40), (40, 84, 170), (232, 232, 230), (52, 54, 60), (150, 154, 160), (236, 190, 50),
    (40, 122, 84), (126, 74, 48), (110, 190, 214), (120, 40, 96), (226, 118, 40), (206, 200, 180),
)  # fmt: skip


def draw_vehicle(
    canvas: Canvas, view: View, vehicle: VehicleClass, paint: Color, label: int | None = None, *, lit: bool = False
) -> None:
    """Draws a car whose rear end stands at the view's position."""
    shape = shape_of(vehicle)
    if label is not None:
        canvas.begin(label, paint)
    ground_shadow(canvas, view, shape.length, shape.width)
    black = (34, 34, 38)
    roof = black if vehicle.roof == "black" else paint
    face = {"end": paint, "body": paint, "glass": GLASS, "roof": roof, "bed": (46, 46, 48), "cabin": (44, 34, 30)}
    low = shape.profile[0, 1]
    canvas.poly(view.pixels([[0.1, 0.12, -0.7], [0.1, 0.12, 0.7], [shape.length - 0.1, 0.12, 0.7],
                             [shape.length - 0.1, 0.12, -0.7]]), (18, 18, 20))  # fmt: skip
    _draw_far_wheels(canvas, view, shape, label)
    draw_solid(canvas, view, shape.profile, [face[kind] for kind in shape.kinds], paint, label)
    if vehicle.body == "convertible":
        _draw_open_top(canvas, view, shape, label)
    _draw_ends(canvas, view, shape, vehicle, paint, low, lit)
    for sign in (1.0, -1.0):
        if view.sees((shape.length / 2, 0.6, sign * shape.width / 2), (0, 0, sign)):
            _draw_side(canvas, view, shape, vehicle, paint, sign, label)


def _wheel_places(shape: Shape) -> tuple[float, float, float]:
    return 0.185 * shape.length, 0.805 * shape.length, 0.215 * min(shape.height, 1.75)


def _draw_far_wheels(canvas: Canvas, view: View, shape: Shape, label: int | None) -> None:
    rear, front, radius = _wheel_places(shape)
    for sign in (1.0, -1.0):
        if not view.sees((shape.length / 2, 0.6, sign * shape.width / 2), (0, 0, sign)):
            for x in (rear, front):
                draw_wheel(canvas, view, x, radius, sign * (shape.width / 2 - 0.1), "none", label)


def _draw_open_top(canvas: Canvas, view: View, shape: Shape, label: int | None) -> None:
    length, height, half = shape.length, shape.height, shape.width / 2 * 0.9
    seats = [(0.36, s) for s in (-0.42, 0.42)] + [(0.47, s) for s in (-0.42, 0.42)]
    for x, z in seats:
        canvas.poly(
            view.pixels(across(rect(z - 0.2, 0.6 * height, z + 0.2, 0.9 * height), x * length)), (96, 60, 44), label
        )
    frame = [[0.62 * length, 0.72 * height, -half], [0.54 * length, height, -half * 0.86],
             [0.54 * length, height, half * 0.86], [0.62 * length, 0.72 * height, half]]  # fmt: skip
    canvas.poly(view.pixels(frame), (118, 138, 152), label)
    canvas.line(view.pixels(frame), (40, 40, 44), 0.05 * view.scale_at((0.6 * length, 1, 0)), label)


def _draw_side(
    canvas: Canvas, view: View, shape: Shape, vehicle: VehicleClass, paint: Color, sign: float, label: int | None
) -> None:
    length, height, half = shape.length, shape.height, sign * shape.width / 2
    tone = scaled(paint, view.brightness((0, 0.25, sign)))
    scale = view.scale_at((length / 2, 0.6, half))
    rear, front, radius = _wheel_places(shape)
    if vehicle.roof == "black" and vehicle.body != "convertible":
        tops = shape.profile[shape.profile[:, 1] > 0.9 * height]
        canvas.line(view.pixels(tops * [1, 0.985, sign]), (34, 34, 38), 0.09 * scale)
    for window in _side_windows(shape, vehicle, sign):
        canvas.poly(view.pixels(window), scaled(GLASS, 1.25), bottom=scaled(GLASS, 0.75))
    belt = 0.62 * height if vehicle.body != "van" else 0.56 * height
    doors = max(1, vehicle.doors // 2)
    start, end = (0.30 if doors == 2 else 0.46) * length, 0.70 * length
    if vehicle.body in ("van", "pickup") and doors == 1:
        start, end = 0.62 * length if vehicle.body == "van" else 0.44 * length, 0.80 * length
    for edge in np.linspace(start, end, doors + 1):
        canvas.line(view.pixels(flat([(edge, 0.26 * height), (edge, belt)], half)), scaled(tone, 0.6), 0.02 * scale)
    for edge in np.linspace(start, end, doors + 1)[:-1]:
        handle = flat([(edge + 0.1, belt - 0.1), (edge + 0.28, belt - 0.1)], half)
        canvas.line(view.pixels(handle), scaled(tone, 0.5), 0.035 * scale)
    sill = flat([(rear, 0.235 * height), (front, 0.235 * height)], half)
    canvas.line(view.pixels(sill), (40, 40, 44), 0.07 * scale)
    if vehicle.roof == "railed":
        top = shape.profile[shape.profile[:, 1] > 0.9 * height] if vehicle.body != "convertible" else shape.profile[2:4]
        bar = np.array([top[0], top[-1]]) * [1, 1, sign * 0.95] + [0, 0.09, 0]
        canvas.line(view.pixels(bar), (30, 30, 32), 0.05 * scale, label)
        for share in (0.08, 0.5, 0.92):
            foot = bar[0] + (bar[1] - bar[0]) * share
            canvas.line(view.pixels([foot, foot - [0, 0.09, 0]]), (30, 30, 32), 0.05 * scale, label)
    for x in (rear, front):
        arch = flat(np.stack([x + 1.22 * radius * np.cos(_ARC), radius + 1.22 * radius * np.sin(_ARC)], -1), half)
        canvas.poly(view.pixels(arch), (22, 22, 24))
        draw_wheel(canvas, view, x, radius, half, vehicle.wheels, label)


_ARC = np.linspace(-0.25, np.pi + 0.25, 12)


def _side_windows(shape: Shape, vehicle: VehicleClass, sign: float) -> list[np.ndarray]:
    """Returns the side windows as (4, 3) local quads: the glass house, inset and cut by pillars."""
    if vehicle.body == "convertible":
        return []
    height = shape.height
    roof = shape.profile[shape.profile[:, 1] > 0.9 * height]
    belts = shape.profile[(shape.profile[:, 1] < 0.9 * height) & (shape.profile[:, 1] > 0.55 * height)]
    rear_low, front_low = belts[belts[:, 0] < roof[0, 0] + 0.01], belts[belts[:, 0] > roof[-1, 0]]
    low_y, top_y = 0.665 * height, 0.925 * height
    if vehicle.body == "van":
        ends = (0.64 * shape.length, 0.64 * shape.length, 0.77 * shape.length, 0.855 * shape.length)
    else:
        ends = (rear_low[-1, 0] + 0.16, roof[0, 0] + 0.1, roof[-1, 0] - 0.06, front_low[0, 0] - 0.14)
    panes = {"van": 1, "pickup": vehicle.doors // 2, "coupe": 2, "minivan": 3, "wagon": 3, "suv": 3}.get(
        vehicle.body, 2
    )
    cuts = np.linspace(0, 1, panes + 1)
    half_low, half_top = shape.width / 2, float(roof[0, 2]) * 1.02
    quads = []
    for a, b in zip(cuts[:-1] + 0.02, cuts[1:] - 0.02, strict=True):
        low = ends[0] + (ends[3] - ends[0]) * np.array([a, b])
        top = ends[1] + (ends[2] - ends[1]) * np.array([a, b])
        quads.append(np.array([[low[0], low_y, sign * half_low], [top[0], top_y, sign * half_top],
                               [top[1], top_y, sign * half_top], [low[1], low_y, sign * half_low]]))  # fmt: skip
    return quads


def _draw_ends(
    canvas: Canvas, view: View, shape: Shape, vehicle: VehicleClass, paint: Color, low: float, lit: bool
) -> None:
    half, height, length = shape.width / 2, shape.height, shape.length
    if view.sees((length, low, 0), (1, 0, 0)):
        top = float(shape.profile[-2, 1])
        _draw_front(canvas, view, vehicle, length, half, low, top, lit)
    elif view.sees((0, low, 0), (-1, 0, 0)):
        level = (0.5 if vehicle.body != "van" else 0.38) * height
        lamp = (238, 52, 44) if lit else (176, 24, 28)
        for sign in (-1, 1):
            size = {"round": (0.16, 0.09), "slim": (0.34, 0.05), "square": (0.2, 0.14)}[vehicle.lamps]
            corner = rect(sign * (half - 0.06), level - size[1], sign * (half - 0.06 - 1.2 * size[0]), level + size[1])
            canvas.poly(view.pixels(across(corner, 0)), lamp)
            if lit:
                canvas.glow(
                    view.pixels((0, level, sign * (half - 0.2))), 0.22 * view.scale_at((0, 0, 0)), (190, 20, 16)
                )
        canvas.poly(view.pixels(across(rect(-0.26, 0.34 * height, 0.26, 0.42 * height), 0)), (226, 226, 214))
        canvas.poly(view.pixels(across(rect(-half, low, half, low + 0.14), 0)), mix(paint, (30, 30, 34), 0.7))
        if vehicle.body == "van":
            for z in (-0.44, 0.44):
                canvas.poly(view.pixels(across(rect(z - 0.36, 0.62 * height, z + 0.36, 0.88 * height), 0)), GLASS)
            canvas.line(view.pixels(across([(0, low), (0, 0.95 * height)], 0)), scaled(paint, 0.5), 1)


def _draw_front(
    canvas: Canvas, view: View, vehicle: VehicleClass, x: float, half: float, low: float, top: float, lit: bool
) -> None:
    def put(zy: np.ndarray, color: Color) -> None:
        canvas.poly(view.pixels(across(zy, x)), color)

    middle, reach = low + 0.62 * (top - low), half * 0.58
    dark, chrome = (24, 24, 28), (188, 190, 196)
    put(rect(-half, low, half, low + 0.12), (40, 40, 44))
    if vehicle.grille == "twin":
        put(rect(-reach, middle - 0.13, -0.06, middle + 0.1), dark)
        put(rect(0.06, middle - 0.13, reach, middle + 0.1), dark)
    else:
        put(rect(-reach, middle - 0.14, reach, middle + 0.12), dark)
    if vehicle.grille == "slat":
        for z in np.linspace(-reach + 0.08, reach - 0.08, 6):
            put(rect(z - 0.025, middle - 0.13, z + 0.025, middle + 0.11), chrome)
    elif vehicle.grille == "bar":
        put(rect(-reach, middle - 0.05, reach, middle + 0.03), chrome)
    for sign in (-1, 1):
        z, color = sign * (half - 0.19), (255, 250, 226) if lit else (232, 236, 240)
        if vehicle.lamps == "round":
            angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            put(np.stack([z + 0.15 * np.cos(angle), middle + 0.15 * np.sin(angle)], -1), color)
        else:
            wide, tall = (0.17, 0.055) if vehicle.lamps == "slim" else (0.13, 0.12)
            put(rect(z - wide, middle - tall, z + wide, middle + tall), color)
        if lit:
            canvas.glow(view.pixels((x, middle, z)), 0.42 * view.scale_at((x, 0, 0)), (235, 220, 170))
    put(rect(-0.26, low + 0.13, 0.26, low + 0.25), (226, 226, 214))
