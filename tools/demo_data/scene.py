"""Street scenes with a label for every pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from demo_data import actors, people, roadside
from demo_data.bodies import vehicle_classes
from demo_data.classes import CAR
from demo_data.draw import Camera, Canvas, pick, scaled
from demo_data.ground import Street, draw_ground, draw_sky, plan_street
from demo_data.objects import SeenObject, seen_objects
from demo_data.solids import View
from demo_data.vehicles import PAINTS, draw_vehicle
from demo_data.weather import Conditions, develop, draw_conditions, hard_labels
from ppmtl.structures import IGNORE_LABEL, Size

_FAR = 70.0  # metres to the end of the street
Drawing = tuple[float, Callable[[], object]]


class StreetScene(NamedTuple):
    """A street scene with its exact labels.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        label_map: (H, W) uint8 class ids 0..18, 255 = not labelled.
        objects: what can be seen of the things and people in it.
        conditions: its light and weather.
    """

    image: np.ndarray
    label_map: np.ndarray
    objects: list[SeenObject]
    conditions: Conditions


def render_street(rng: np.random.Generator, size: Size) -> StreetScene:
    """Returns a street scene; ``rng`` is the only source of chance, ``size`` is (height, width) in pixels."""
    canvas, _, conditions = draw_street(rng, size)
    if rng.random() < 0.35:
        _draw_bonnet(canvas)
    return StreetScene(develop(canvas, conditions, rng), hard_labels(canvas), seen_objects(canvas), conditions)


def draw_street(
    rng: np.random.Generator, size: Size, *, signs: bool = True, busy: float = 1.0
) -> tuple[Canvas, Camera, Conditions]:
    """Returns a drawn street that is not yet developed, its camera and its weather.

    Args:
        rng: the only source of chance.
        size: (height, width) in pixels.
        signs: whether traffic signs may stand in it.
        busy: scales how likely each kind of traffic is.
    """
    height, width = size
    conditions = draw_conditions(rng)
    # The focal length follows the larger side so that square pictures do not zoom in
    focal = max(width, 1.5 * height) * rng.uniform(0.62, 0.82)
    camera = Camera(focal, width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.52), rng.uniform(1.35, 1.9))
    canvas = Canvas(size, rng, conditions.sky_bottom, conditions.haze)
    street = plan_street(rng)
    draw_sky(canvas, camera, conditions)
    draw_ground(canvas, camera, street)
    things = _sides(canvas, camera, street, conditions) + _traffic(canvas, camera, street, conditions, busy)
    things += _furniture(canvas, camera, street, conditions, signs)
    for depth, draw in sorted(things, key=lambda thing: -thing[0]):
        canvas.depth, canvas.current = depth, 0
        draw()
    canvas.depth, canvas.current = 0.0, 0
    return canvas, camera, conditions


def _sides(canvas: Canvas, camera: Camera, street: Street, conditions: Conditions) -> list[Drawing]:
    rng, lit = canvas.rng, conditions.lamps_on
    things: list[Drawing] = []
    for line in (street.walk_left, street.walk_right):
        side = float(np.sign(line))
        z = float(rng.uniform(3.0, 8.0))
        while z < _FAR:
            end = z + float(rng.uniform(7, 16))
            x = line + side * 0.2
            kind = str(
                rng.choice(
                    ["building", "wall", "fence", "hedge", "mound", "trees"], p=[0.34, 0.16, 0.18, 0.10, 0.12, 0.10]
                )
            )
            if kind == "building":
                things.append((end, partial(roadside.draw_building, canvas, camera, x + side * 0.3, z, end, lit=lit)))
            elif kind == "wall":
                things.append((end, partial(roadside.draw_wall, canvas, camera, x, z, end)))
            elif kind == "fence":
                things.append((end, partial(roadside.draw_fence, canvas, camera, x, z, end)))
            elif kind == "hedge":
                things.append((end, partial(roadside.draw_hedge, canvas, camera, x, z, end)))
            elif kind == "mound":
                things.append((end + 0.5, partial(roadside.draw_mound, canvas, camera, x, z, end)))
            if kind in ("fence", "hedge", "mound", "trees", "wall"):
                for _ in range(int(rng.integers(1, 4))):
                    place = float(rng.uniform(z, end))
                    # behind the fence: drawn before it
                    things.append(
                        (
                            end + 0.2,
                            partial(roadside.draw_tree, canvas, camera, x + side * float(rng.uniform(1.5, 6)), place),
                        )
                    )
            z = end + float(rng.choice([0.0, 0.0, 2.5]))
    return things


def _traffic(canvas: Canvas, camera: Camera, street: Street, conditions: Conditions, busy: float) -> list[Drawing]:
    rng, lit = canvas.rng, conditions.lamps_on
    things: list[Drawing] = []
    taken: dict[float, list[tuple[float, float]]] = {lane: [] for lane in street.lanes}

    def reserve(length: float, nearest: float, farthest: float) -> tuple[float, float] | None:
        """Returns a free (lane, z) for a body of this length, or None after some tries."""
        for _ in range(6):
            lane, z = float(rng.choice(street.lanes)), float(rng.uniform(nearest, farthest))
            if all(z + length + 1 < a or z > b + 1 for a, b in taken[lane]):
                taken[lane].append((z, z + length))
                return lane, z
        return None

    def big(draw: Callable[..., float], length: float, nearest: float, farthest: float) -> None:
        place = reserve(length, nearest, farthest)
        if place is None:
            return
        lane, z = place
        tilt = float(rng.uniform(-0.05, 0.05))
        oncoming = lane < 0
        view = View(camera, lane, z + (length if oncoming else 0), (np.pi if oncoming else 0.0) + tilt)
        things.append((z + 0.5, partial(draw, canvas, view, lit=lit)))

    for chance, draw, length in (
        (0.42, actors.draw_tram, 16.0),
        (0.46, actors.draw_bus, 10.5),
        (0.48, actors.draw_truck, 8.0),
    ):
        if rng.random() < chance * busy:
            big(draw, length, 8.0, 24.0)
    classes = vehicle_classes(60)
    for _ in range(int(rng.integers(1, 6) * busy)):
        vehicle, paint = classes[int(rng.integers(60))], pick(rng, PAINTS)
        place = reserve(5.0, 6.0, 38.0)
        if place is not None:
            lane, z = place
            oncoming = lane < 0
            turn = float(rng.uniform(-0.12, 0.12)) if rng.random() < 0.8 else float(rng.uniform(-1.2, 1.2))
            view = View(camera, lane, z + (4.8 if oncoming else 0), (np.pi if oncoming else 0.0) + turn)
            things.append((z, partial(draw_vehicle, canvas, view, vehicle, paint, CAR, lit=lit)))
    for motor, chance in ((True, 0.55), (False, 0.55)):
        for _ in range(2):
            if rng.random() < chance * busy:
                things.append(_cycle(canvas, camera, street, motor=motor, lit=lit))
    for _ in range(int(rng.integers(0, 6) * busy)):
        z = float(rng.uniform(5.5, 20))
        edge = (street.left, street.walk_left) if rng.random() < 0.5 else (street.right, street.walk_right)
        x = (
            float(rng.uniform(min(edge), max(edge)))
            if rng.random() < 0.75
            else float(rng.uniform(street.left, street.right))
        )
        things.append((z, partial(people.draw_person, canvas, camera, x, z)))
    return things


def _cycle(canvas: Canvas, camera: Camera, street: Street, *, motor: bool, lit: bool) -> Drawing:
    rng = canvas.rng
    ridden = rng.random() < 0.62
    z = float(rng.uniform(5.0, 14.0))
    # as far sideways as the camera sees at this distance, on the road when ridden, else on the pavement too
    reach = 0.42 * canvas.size[1] / camera.focal * z
    low, high = (street.left, street.right) if ridden else (street.walk_left, street.walk_right)
    x = float(np.clip(rng.uniform(-reach, reach), low, high))
    yaw = float(rng.uniform(0.7, 2.4)) * (1 if rng.random() < 0.5 else -1)
    view = View(camera, x, z, yaw)
    return z, partial(people.draw_cycle, canvas, view, motor=motor, ridden=ridden, lit=lit)


def _furniture(canvas: Canvas, camera: Camera, street: Street, conditions: Conditions, signs: bool) -> list[Drawing]:
    rng, lit = canvas.rng, conditions.lamps_on
    things: list[Drawing] = []

    def kerb() -> float:
        return street.left - 0.5 if rng.random() < 0.45 else street.right + 0.5

    for z in np.arange(rng.uniform(7, 12), 50, rng.uniform(11, 18)).tolist():
        things.append((z, partial(roadside.draw_pole, canvas, camera, kerb(), z, lamp=rng.random() < 0.6, lit=lit)))
    for _ in range(int(rng.integers(0, 3))):
        z = float(rng.uniform(8, 20))
        things.append((z, partial(roadside.draw_traffic_light, canvas, camera, kerb(), z)))
    for _ in range(int(rng.integers(0, 4)) if signs else 0):
        z = float(rng.uniform(7, 18))
        things.append((z, partial(roadside.draw_sign_post, canvas, camera, kerb(), z)))
    return things


def _draw_bonnet(canvas: Canvas) -> None:
    """Covers the lower edge with the bonnet of the camera's own car, which the challenge does not label."""
    rng, (height, width) = canvas.rng, canvas.size
    rise = height * rng.uniform(0.04, 0.10)
    xs = np.linspace(0, 1, 13)
    tops = height - rise * (0.45 + 0.55 * np.sin(np.pi * xs))
    color = pick(rng, PAINTS)
    canvas.poly([*zip((xs * width).tolist(), tops.tolist(), strict=True), (width, height), (0, height)], color,
                IGNORE_LABEL, bottom=scaled(color, 0.5))  # fmt: skip
