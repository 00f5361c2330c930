"""The stage of a street scene: sky, far skyline, grass, pavements, road and markings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo_data.classes import BUILDING, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION
from demo_data.draw import Camera, Canvas, jitter, mix, scaled
from demo_data.weather import Conditions


@dataclass(frozen=True)
class Street:
    """The plan of one street: metres from its middle, the camera stands at X = 0."""

    left: float
    right: float
    walk_left: float
    walk_right: float
    lanes: tuple[float, ...]


def plan_street(rng: np.random.Generator) -> Street:
    """Returns a street of two to four lanes with pavements."""
    lane = rng.uniform(3.0, 3.5)
    own, other = (int(n) for n in rng.integers(1, 3, 2))
    right, left = lane * (own - 0.5), -lane * (other + 0.5)
    right_walk, left_walk = rng.uniform(1.8, 4.0, 2)
    lanes = tuple((np.arange(-other, own) * lane).tolist())
    return Street(left, right, left - left_walk, right + right_walk, lanes)


def draw_sky(canvas: Canvas, camera: Camera, conditions: Conditions) -> None:
    """Draws the sky with clouds and a skyline of houses and woods at the horizon."""
    rng, (height, width) = canvas.rng, canvas.size
    horizon = camera.horizon
    canvas.poly([(0, 0), (width, 0), (width, horizon + 3), (0, horizon + 3)], conditions.sky_top, SKY,
                bottom=conditions.sky_bottom)  # fmt: skip
    for _ in range(int(rng.integers(0, 6))):
        x, y, wide = rng.uniform(0, width), rng.uniform(0, 0.7) * horizon, rng.uniform(0.06, 0.2) * width
        cloud = mix(conditions.sky_bottom, (250, 250, 250), 0.5)
        for _ in range(5):
            angle = np.linspace(0, 2 * np.pi, 14)
            reach = wide * rng.uniform(0.25, 0.55)
            middle = (x + rng.uniform(-0.6, 0.6) * wide, y + rng.uniform(-0.1, 0.1) * wide)
            canvas.poly(np.stack([middle[0] + reach * np.cos(angle), middle[1] + 0.32 * reach * np.sin(angle)], -1),
                        mix(cloud, conditions.sky_top, rng.uniform(0, 0.4)))  # fmt: skip
    canvas.depth = 90.0
    xs = np.linspace(-0.05, 1.05, 15) * width
    for label, color, tall in ((BUILDING, (128, 130, 138), 0.16), (VEGETATION, (72, 96, 66), 0.07)):
        tops = horizon - height * tall * rng.uniform(0.3, 1.0, 15)
        edge = np.repeat(np.stack([xs, tops], -1), 2, axis=0)
        if label == BUILDING:  # flat roofs: shift every second point to the next column
            edge[:-1, 0] = edge[1:, 0]
        canvas.poly(
            [(xs[0], horizon + 3), *edge.tolist(), (xs[-1], horizon + 3)], jitter(rng, color, 12), label, texture=0.15
        )


def draw_ground(canvas: Canvas, camera: Camera, street: Street) -> None:
    """Draws grass, pavements, the road and its markings, up to the horizon."""
    rng, (height, width) = canvas.rng, canvas.size
    canvas.depth, near = 20.0, 1.2
    grass = jitter(rng, (138, 146, 80) if rng.random() < 0.7 else (160, 146, 108), 14)
    top = camera.horizon + 1
    canvas.poly([(0, top), (width, top), (width, height), (0, height)], mix(grass, canvas.haze_color, 0.2), TERRAIN,
                bottom=grass, texture=0.35)  # fmt: skip
    canvas.depth = 4.0

    def strip(x1: float, x2: float, z1: float = near, z2: float = 400.0) -> np.ndarray:
        return camera.project([(x1, 0, z1), (x1, 0, z2), (x2, 0, z2), (x2, 0, z1)])

    slabs = jitter(rng, (168, 160, 152), 12)
    for inner, outer in ((street.left, street.walk_left), (street.right, street.walk_right)):
        canvas.poly(strip(inner, outer), mix(slabs, canvas.haze_color, 0.3), SIDEWALK, bottom=slabs, texture=0.15)
        for z in np.arange(2.0, 26.0, 1.5).tolist():
            canvas.line(camera.project([(inner, 0, z), (outer, 0, z)]), scaled(slabs, 0.78), 0.6)
    asphalt = jitter(rng, (92, 92, 96), 12)
    canvas.poly(
        strip(street.left, street.right), mix(asphalt, canvas.haze_color, 0.25), ROAD, bottom=asphalt, texture=0.22
    )
    for edge in (street.left, street.right):
        canvas.poly(strip(edge - 0.1, edge + 0.1), (186, 182, 176), SIDEWALK)
    paint = (226, 226, 218)
    gap = (street.right - street.left) / len(street.lanes)
    for index in range(1, len(street.lanes)):
        x = street.left + index * gap
        middle = index == sum(lane < 0 for lane in street.lanes)
        if middle and rng.random() < 0.6:
            canvas.poly(strip(x - 0.08, x + 0.08, z2=90), (228, 190, 80))
            continue
        offset = rng.uniform(0, 6)
        for z in np.arange(near + offset - 4, 60, 6.0).tolist():
            if z > near:
                canvas.poly(strip(x - 0.08, x + 0.08, z, z + 2.6), paint)
    if rng.random() < 0.3:
        start = rng.uniform(7, 18)
        for x in np.arange(street.left + 0.4, street.right - 0.4, 1.0).tolist():
            canvas.poly(strip(x, x + 0.5, start, start + 3.2), paint)
