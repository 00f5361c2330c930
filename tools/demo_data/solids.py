"""Extruded solids in perspective: one side profile, swept across the width, is a car, a lorry or a tram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from demo_data.draw import Camera, Canvas, Color, scaled

_LIGHT = np.array([-0.42, 0.80, -0.43])  # towards the sun: upper left, behind the camera
GLASS: Color = (52, 66, 80)
RUBBER: Color = (28, 28, 31)


@dataclass(frozen=True)
class View:
    """A body standing in front of a camera.

    Local coordinates: x forward, y up, z to the body's right, in metres; yaw 0 looks away from the camera.
    """

    camera: Camera
    x: float
    z: float
    yaw: float

    def turn(self, local: ArrayLike) -> np.ndarray:
        """Returns (..., 3) world directions of local directions."""
        points = np.asarray(local, np.float64)
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        ahead, up, right = points[..., 0], points[..., 1], points[..., 2]
        return np.stack([ahead * sin + right * cos, up, ahead * cos - right * sin], axis=-1)

    def world(self, local: ArrayLike) -> np.ndarray:
        """Returns (..., 3) world points of local points."""
        return np.asarray(self.turn(local) + np.array([self.x, 0.0, self.z]))

    def pixels(self, local: ArrayLike) -> np.ndarray:
        """Returns (..., 2) pixel coordinates of local points."""
        return self.camera.project(self.world(local))

    def sees(self, point: ArrayLike, normal: ArrayLike) -> bool:
        """Returns whether a face at local ``point`` with local outward ``normal`` looks towards the camera."""
        to_camera = np.array([0.0, self.camera.height, 0.0]) - self.world(point)
        return float(self.turn(normal) @ to_camera) > 0.0

    def scale_at(self, point: ArrayLike) -> float:
        """Returns pixels per metre at a local point."""
        return self.camera.focal / max(float(self.world(point)[2]), 0.3)

    def brightness(self, normal: ArrayLike) -> float:
        """Returns how bright a face with this local normal is, 0.6 in shade to 1.1 in the sun."""
        direction = self.turn(normal)
        length = max(float(np.linalg.norm(direction)), 1e-9)
        return 0.66 + 0.44 * max(0.0, float(direction @ _LIGHT) / length)


def draw_solid(
    canvas: Canvas, view: View, profile: ArrayLike, colors: Sequence[Color], side: Color, label: int | None
) -> None:
    """Draws a swept profile, faces turned away left out, the rest from far to near.

    Args:
        canvas: drawn on.
        view: where the body stands.
        profile: (N, 3) rows x, y, half width; from the lower rear corner up and over to the lower front corner.
        colors: the N - 1 colours of the faces that start at each row.
        side: colour of the two sides.
        label: class id of the body.
    """
    rows = np.asarray(profile, np.float64)
    right, left = rows.copy(), rows.copy()
    left[:, 2] *= -1
    faces: list[tuple[float, np.ndarray, Color]] = []
    for index, color in enumerate(colors):
        quad = np.stack([right[index], right[index + 1], left[index + 1], left[index]])
        normal = np.cross(quad[1] - quad[0], quad[3] - quad[0])
        centre = quad.mean(axis=0)
        if view.sees(centre, normal):
            distance = float(np.linalg.norm(view.world(centre)))
            faces.append((distance, quad, scaled(color, view.brightness(normal))))
    faces.sort(key=lambda face: -face[0])
    for _, quad, color in faces:
        canvas.poly(view.pixels(quad), color, label)
    for outline, sign in ((right, 1.0), (left, -1.0)):
        if view.sees(outline.mean(axis=0), (0, 0, sign)):
            paint = scaled(side, view.brightness((0, 0.25, sign)))
            canvas.poly(view.pixels(outline), scaled(paint, 1.08), label, bottom=scaled(paint, 0.72))


def box_profile(length: float, width: float, bottom: float, top: float, start: float = 0.0) -> np.ndarray:
    """Returns the (4, 3) profile of a box whose rear is at x = ``start``."""
    half = width / 2
    end = start + length
    return np.array([[start, bottom, half], [start, top, half], [end, top, half], [end, bottom, half]])


def flat(points: ArrayLike, z: float) -> np.ndarray:
    """Returns (N, 3) local points of (N, 2) side-view points x, y in the plane at ``z``."""
    xy = np.asarray(points, np.float64)
    return np.concatenate([xy, np.full((*xy.shape[:-1], 1), z)], axis=-1)


def across(points: ArrayLike, x: float) -> np.ndarray:
    """Returns (N, 3) local points of (N, 2) front-view points z, y in the plane at ``x``."""
    zy = np.asarray(points, np.float64)
    return np.stack([np.full(zy.shape[:-1], x), zy[..., 1], zy[..., 0]], axis=-1)


def ring(x: float, y: float, radius: float, count: int = 18) -> np.ndarray:
    """Returns (count, 2) points of a circle in the side view."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=-1)


def rect(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Returns the (4, 2) corners of a rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def ground_shadow(canvas: Canvas, view: View, length: float, width: float, factor: float = 0.45) -> None:
    """Darkens the ground below a body."""
    half = width / 2 + 0.12
    outline = [[-0.1, 0, -half], [-0.1, 0, half], [length + 0.1, 0, half], [length + 0.1, 0, -half]]
    canvas.shadow(view.pixels(outline), factor, blur=max(1.0, 0.1 * view.scale_at((length / 2, 0, 0))))


def draw_wheel(canvas: Canvas, view: View, x: float, radius: float, z: float, style: str, label: int | None) -> None:
    """Draws one wheel in the side plane at ``z``: arch, tyre and a rim of a style ``spokes|disc|mesh|ring``."""
    canvas.poly(view.pixels(flat(ring(x, radius, radius), z)), RUBBER, label)
    rim = (176, 178, 184)
    canvas.poly(view.pixels(flat(ring(x, radius, radius * 0.72), z)), (60, 60, 66) if style != "disc" else rim)
    line = max(0.5, radius * 0.16 * view.scale_at((x, radius, z)))
    spokes = {"spokes": 5, "mesh": 11}.get(style, 0)
    for angle in np.arange(spokes) * (2 * np.pi / max(spokes, 1)) + 0.3:
        tip = (x + 0.68 * radius * np.cos(angle), radius + 0.68 * radius * np.sin(angle))
        canvas.line(view.pixels(flat([(x, radius), tip], z)), rim, line * (1.0 if style == "spokes" else 0.4))
    if style == "ring":
        canvas.line(view.pixels(flat(ring(x, radius, radius * 0.66), z)), rim, line, closed=True)
    elif style == "disc":
        canvas.poly(view.pixels(flat(ring(x, radius, radius * 0.2), z)), (90, 92, 98))
    else:
        canvas.poly(view.pixels(flat(ring(x, radius, radius * 0.16), z)), rim)
