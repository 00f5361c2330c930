"""Cars by class: a class fixes the shape (body, length, lamps, grille, wheels, roof, side); the colour is free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_VEHICLE_CLASSES = 196  # as many as Stanford Cars

# Per body: length, width, height in metres, then the side profile as (share of length, share of height, what the face
# that starts here is). Drawn by eye after the common silhouettes.
_BODIES: dict[str, tuple[float, float, float, tuple[tuple[float, float, str], ...]]] = {
    "sedan": (4.7, 1.8, 1.45, ((0, 0.2, "end"), (0, 0.6, "body"), (0.16, 0.66, "glass"), (0.29, 0.96, "roof"),
                               (0.56, 1, "glass"), (0.72, 0.66, "body"), (0.97, 0.54, "end"), (1, 0.2, ""))),
    "suv": (4.7, 1.95, 1.85, ((0, 0.22, "end"), (0, 0.6, "glass"), (0.04, 0.97, "roof"),
                              (0.60, 1, "glass"), (0.71, 0.66, "body"), (0.97, 0.6, "end"), (1, 0.22, ""))),
    "pickup": (5.3, 1.95, 1.8, ((0, 0.25, "end"), (0, 0.58, "bed"), (0.40, 0.58, "glass"), (0.43, 0.97, "roof"),
                                (0.61, 1, "glass"), (0.73, 0.64, "body"), (0.98, 0.58, "end"), (1, 0.25, ""))),
    "hatchback": (3.9, 1.72, 1.5, ((0, 0.2, "end"), (0, 0.58, "glass"), (0.11, 0.95, "roof"),
                                   (0.53, 1, "glass"), (0.73, 0.66, "body"), (0.97, 0.54, "end"), (1, 0.2, ""))),
    "van": (5.2, 2.0, 2.3, ((0, 0.16, "end"), (0, 0.97, "roof"),
                            (0.76, 1, "glass"), (0.90, 0.58, "body"), (0.99, 0.44, "end"), (1, 0.16, ""))),
    "convertible": (4.3, 1.8, 1.3, ((0, 0.22, "end"), (0, 0.68, "body"), (0.26, 0.74, "cabin"), (0.62, 0.72, "body"),
                                    (0.97, 0.56, "end"), (1, 0.22, ""))),
    "coupe": (4.4, 1.85, 1.3, ((0, 0.2, "end"), (0, 0.66, "body"), (0.07, 0.7, "glass"), (0.38, 0.97, "roof"),
                               (0.51, 1, "glass"), (0.68, 0.67, "body"), (0.98, 0.5, "end"), (1, 0.2, ""))),
    "wagon": (4.85, 1.8, 1.48, ((0, 0.2, "end"), (0, 0.6, "glass"), (0.08, 0.95, "roof"),
                                (0.56, 1, "glass"), (0.71, 0.66, "body"), (0.97, 0.54, "end"), (1, 0.2, ""))),
    "minivan": (4.9, 1.95, 1.8, ((0, 0.2, "end"), (0, 0.58, "glass"), (0.04, 0.96, "roof"),
                                 (0.62, 1, "glass"), (0.86, 0.62, "body"), (0.98, 0.5, "end"), (1, 0.2, ""))),
}  # fmt: skip
_LENGTHS, _LAMPS = ("short", "long"), ("round", "slim", "square")
_GRILLES, _WHEELS = ("slat", "mesh", "bar", "twin"), ("spokes", "disc", "mesh", "ring")
_ROOFS = ("plain", "railed", "black")


@dataclass(frozen=True)
class VehicleClass:
    """The shape parameters of one class; two classes differ in at least one that is seen from the side."""

    body: str
    length: str
    lamps: str
    grille: str
    wheels: str
    roof: str
    doors: int

    @property
    def name(self) -> str:
        """Returns the class name as written to classes.txt."""
        return (
            f"{self.body} {self.length} {self.doors}-door {self.lamps}-lamp {self.grille}-grille "
            f"{self.wheels}-wheel {self.roof}-roof"
        )


def vehicle_classes(count: int) -> tuple[VehicleClass, ...]:
    """Returns the first ``count`` classes; early ones differ most: nine bodies first, then variants of each.

    Raises:
        ValueError: if ``count`` is not in 1..196.
    """
    if not 1 <= count <= MAX_VEHICLE_CLASSES:
        raise ValueError(f"vehicle_classes must be in 1..{MAX_VEHICLE_CLASSES}, got {count}")
    classes = []
    for index in range(count):
        body, variant = list(_BODIES)[index % len(_BODIES)], index // len(_BODIES)
        # (length, roof, wheels) alone are unique for variants 0..23; lamps and grille change along with them
        turn = variant // 6
        doors = 2 if body in ("coupe", "convertible", "van", "pickup") else 4
        if body in ("hatchback", "pickup") and variant % 2:
            doors = 6 - doors
        lamps, grille = _LAMPS[(variant + turn) % 3], _GRILLES[(variant + turn) % 4]
        wheels, roof = _WHEELS[(turn + variant) % 4], _ROOFS[(variant // 2) % 3]
        classes.append(VehicleClass(body, _LENGTHS[variant % 2], lamps, grille, wheels, roof, doors))
    return tuple(classes)


@dataclass(frozen=True)
class Shape:
    """The measures of a class in metres.

    Attributes:
        length, width, height: of the whole body.
        profile: (N, 3) rows x, y, half width of the side view, from the lower rear corner to the lower front corner.
        kinds: what the N - 1 faces that start at each row are: end, body, glass, roof, bed, cabin.
    """

    length: float
    width: float
    height: float
    profile: np.ndarray
    kinds: tuple[str, ...]


def shape_of(vehicle: VehicleClass) -> Shape:
    """Returns the measures of a class."""
    length, width, height, rows = _BODIES[vehicle.body]
    length *= 0.93 if vehicle.length == "short" else 1.13
    height *= 1.04 if vehicle.length == "short" else 0.97
    half = width / 2
    profile = [
        (x * length, y * height, half * (0.80 if y > 0.9 and vehicle.body != "van" else 1.0)) for x, y, _ in rows
    ]
    return Shape(length, width, height, np.array(profile), tuple(kind for _, _, kind in rows[:-1]))


def bounding_points(vehicle: VehicleClass) -> np.ndarray:
    """Returns (M, 3) local points that enclose the vehicle."""
    shape = shape_of(vehicle)
    right = np.concatenate([shape.profile, [[0, 0, shape.width / 2], [shape.length, shape.height, shape.width / 2]]])
    return np.concatenate([right, right * [1, 1, -1]])
