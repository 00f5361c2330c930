"""One vehicle filling the picture, as in a car catalogue shot on the street: the classification pictures."""

from __future__ import annotations

import numpy as np

from demo_data.bodies import VehicleClass, bounding_points, vehicle_classes
from demo_data.draw import Camera, Canvas, Color, jitter, mix, pick
from demo_data.solids import View
from demo_data.vehicles import PAINTS, draw_vehicle
from demo_data.weather import Conditions, develop, draw_conditions
from ppmtl.structures import Size


def render_vehicle(rng: np.random.Generator, class_index: int, num_classes: int, size: Size) -> np.ndarray:
    """Returns an (H, W, 3) uint8 RGB picture of one vehicle.

    Args:
        rng: the only source of chance.
        class_index: 0..num_classes - 1.
        num_classes: how many classes there are, 1..196.
        size: (height, width) of the picture in pixels.
    """
    vehicle = vehicle_classes(num_classes)[class_index]
    conditions = draw_conditions(rng)
    camera, view = _frame(rng, vehicle, size)
    canvas = Canvas(size, rng, conditions.sky_bottom, conditions.haze * 0.5)
    _draw_backdrop(canvas, camera, conditions)
    paint = pick(rng, PAINTS)
    draw_vehicle(canvas, view, vehicle, paint, lit=conditions.lamps_on)
    if rng.random() < 0.12:  # a post in front of it
        x, width = rng.uniform(0.05, 0.95) * size[1], size[1] * rng.uniform(0.015, 0.04)
        canvas.poly([(x, 0), (x + width, 0), (x + width, size[0]), (x, size[0])], jitter(rng, (110, 112, 116), 30))
    return develop(canvas, conditions, rng)


def _frame(rng: np.random.Generator, vehicle: VehicleClass, size: Size) -> tuple[Camera, View]:
    """Returns a camera that frames the vehicle, seen from the side or three quarters, and its pose."""
    height, width = size
    if rng.random() < 0.3:
        turn = rng.uniform(-0.15, 0.15)  # side view
    else:
        turn = rng.uniform(0.25, 0.95) * (1 if rng.random() < 0.7 else -0.75)  # front, less often rear, three quarters
    heading_right = rng.random() < 0.5
    yaw = np.pi / 2 + turn if heading_right else -np.pi / 2 - turn
    points = bounding_points(vehicle)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    distance = rng.uniform(6.5, 10.0)
    unit = Camera(1.0, 0.0, 0.0, rng.uniform(1.3, 2.3))
    offset = View(unit, 0.0, 0.0, yaw).world((middle[0], 0, 0))
    view = View(unit, -float(offset[0]), distance - float(offset[2]), yaw)
    seen = view.pixels(points)
    low, high = seen.min(axis=0), seen.max(axis=0)
    fill = rng.uniform(0.80, 1.02)
    focal = fill * min(width / (high[0] - low[0]), 0.9 * height / (high[1] - low[1]))
    centre = width / 2 - focal * (low[0] + high[0]) / 2 + rng.uniform(-0.04, 0.04) * width
    horizon = height * rng.uniform(0.50, 0.58) - focal * (low[1] + high[1]) / 2
    camera = Camera(float(focal), float(centre), float(horizon), unit.height)
    return camera, View(camera, view.x, view.z, yaw)


def _draw_backdrop(canvas: Canvas, camera: Camera, conditions: Conditions) -> None:
    rng, (height, width) = canvas.rng, canvas.size
    far = float(camera.project((0, 0, 24.0))[1])
    kerb = float(camera.project((0, 0, rng.uniform(11.0, 14.0)))[1])
    canvas.poly(_band(0, far + 2, width), conditions.sky_top, bottom=conditions.sky_bottom)
    if rng.random() < 0.6:
        _draw_houses(canvas, far, conditions)
    else:
        green: Color = jitter(rng, (70, 104, 58), 18)
        bumps = np.arange(0, width + 24, 12)
        tops = far - height * rng.uniform(0.12, 0.5) * rng.uniform(0.7, 1.0, len(bumps))
        outline = [*zip(bumps.tolist(), tops.tolist(), strict=True), (width, far + 2), (0, far + 2)]
        canvas.poly(outline, green, bottom=mix(green, (20, 30, 20), 0.5), texture=0.5)
    ground = jitter(rng, (112, 112, 114), 16) if rng.random() < 0.75 else jitter(rng, (120, 126, 84), 16)
    canvas.poly(_band(far, kerb + 1, width), jitter(rng, (150, 146, 138), 14), texture=0.12)
    canvas.poly(_band(kerb, height, width), ground, bottom=mix(ground, (50, 50, 54), 0.25), texture=0.2)
    for _ in range(int(rng.integers(0, 4))):
        x = rng.uniform(0, width)
        wide = rng.uniform(0.008, 0.02) * width
        top = far - rng.uniform(0.3, 0.8) * height
        canvas.poly([(x, top), (x + wide, top), (x + wide, kerb), (x, kerb)], jitter(rng, (96, 92, 88), 25))
    if rng.random() < 0.4:
        y = kerb + (height - kerb) * rng.uniform(0.75, 0.95)
        canvas.poly(_band(y, y + max(1.0, 0.02 * height), width), (214, 214, 206))


def _band(top: float, bottom: float, width: float) -> list[tuple[float, float]]:
    return [(0, top), (width, top), (width, bottom), (0, bottom)]


def _draw_houses(canvas: Canvas, far: float, conditions: Conditions) -> None:
    rng, (height, width) = canvas.rng, canvas.size
    x = -rng.uniform(0, 0.3) * width
    while x < width:
        wide, tall = rng.uniform(0.25, 0.6) * width, rng.uniform(0.35, 1.1) * height
        wall = jitter(rng, ((172, 130, 108), (196, 184, 160), (140, 144, 152), (178, 96, 78))[int(rng.integers(4))], 16)
        canvas.poly([(x, far - tall), (x + wide, far - tall), (x + wide, far + 2), (x, far + 2)], wall, texture=0.08)
        step = rng.uniform(0.10, 0.16) * height
        xs, ys = (
            np.arange(x + step * 0.4, x + wide - step * 0.6, step),
            np.arange(far - tall + step * 0.4, far - step, step),
        )
        panes = [[(a, b), (a + step * 0.5, b), (a + step * 0.5, b + step * 0.62), (a, b + step * 0.62)]
                 for a in xs.tolist() for b in ys.tolist()]  # fmt: skip
        lit = (244, 208, 130) if conditions.lamps_on and rng.random() < 0.5 else (78, 92, 108)
        canvas.polys(panes[:80], lit)
        x += wide
