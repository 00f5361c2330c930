"""What lines a street: houses, walls, fences, trees, poles, lamps, traffic lights and sign posts."""

from __future__ import annotations

import numpy as np

from demo_data.classes import BUILDING, FENCE, POLE, TERRAIN, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, WALL
from demo_data.draw import Camera, Canvas, Color, jitter, mix, pick, scaled
from demo_data.signs import SIGN_NAMES, sign_face

_FACADES: tuple[Color, ...] = (
    (178, 122, 98), (204, 188, 156), (150, 152, 158), (188, 100, 80), (216, 204, 184), (120, 126, 138), (222, 178, 128),
)  # fmt: skip
_METAL: Color = (112, 116, 120)
Pane = list[tuple[float, float, float]]


def _plane(camera: Camera, x: float, z1: float, y1: float, z2: float, y2: float) -> np.ndarray:
    """Returns the pixels of a rectangle in the plane X = x, along the street."""
    return camera.project([(x, y1, z1), (x, y2, z1), (x, y2, z2), (x, y1, z2)])


def _frontal(camera: Camera, z: float, x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Returns the pixels of a rectangle in the plane Z = z, facing the camera."""
    return camera.project([(x1, y1, z), (x1, y2, z), (x2, y2, z), (x2, y1, z)])


def draw_building(canvas: Canvas, camera: Camera, x: float, z1: float, z2: float, *, lit: bool) -> None:
    """Draws a house whose facade runs along the street at X = x from z1 to z2."""
    rng, side = canvas.rng, float(np.sign(x))
    floors = int(rng.integers(2, 7))
    tall, wall = floors * 3.1 + 1.0, pick(rng, _FACADES)
    face, end = scaled(wall, 0.95 if side > 0 else 0.78), scaled(wall, 1.08)
    canvas.poly(_plane(camera, x, z1, 0, z2, tall), face, BUILDING, bottom=scaled(face, 0.8), texture=0.1)
    far_x = x + side * 12
    canvas.poly(_frontal(camera, z1, x, 0, far_x, tall), end, BUILDING, bottom=scaled(end, 0.8), texture=0.1)
    glass: Color = (74, 92, 112) if rng.random() < 0.6 else (52, 62, 76)
    bright: Color = (250, 214, 138)
    columns = max(2, int((z2 - z1) / rng.uniform(2.2, 3.4)))
    step = (z2 - z1) / columns
    panes: dict[str, list[Pane]] = {"side": [], "end": [], "side lit": [], "end lit": []}
    for floor in range(1, floors):
        low = floor * 3.1 + 0.9
        for column in range(columns):
            start = z1 + (column + 0.25) * step
            pane = [
                (x, low, start),
                (x, low + 1.5, start),
                (x, low + 1.5, start + 0.5 * step),
                (x, low, start + 0.5 * step),
            ]
            panes["side lit" if lit and rng.random() < 0.4 else "side"].append(pane)
        for column in range(4):
            left, right = x + side * (0.8 + column * 2.8), x + side * (2.2 + column * 2.8)
            pane = [(left, low, z1), (left, low + 1.5, z1), (right, low + 1.5, z1), (right, low, z1)]
            panes["end lit" if lit and rng.random() < 0.4 else "end"].append(pane)
    colors = {"side": glass, "end": scaled(glass, 1.2)}
    for kind, quads in panes.items():
        if quads:
            canvas.polys(camera.project(quads), colors.get(kind, bright))
    shop = pick(rng, ((46, 110, 130), (150, 40, 44), (50, 90, 60), (200, 150, 50)))
    canvas.poly(_plane(camera, x, z1 + 0.5, 2.5, z2 - 0.5, 3.1), shop)
    canvas.poly(_plane(camera, x, z1 + 0.8, 0.5, z2 - 0.8, 2.4), bright if lit else scaled(glass, 0.85))
    canvas.poly(_plane(camera, x, z1, tall - 0.35, z2, tall), scaled(face, 0.7))
    canvas.poly(_frontal(camera, z1, x, tall - 0.35, far_x, tall), scaled(end, 0.75))


def draw_wall(canvas: Canvas, camera: Camera, x: float, z1: float, z2: float) -> None:
    """Draws a brick or concrete wall along the street."""
    rng, tall = canvas.rng, float(canvas.rng.uniform(1.8, 3.2))
    color = pick(rng, ((158, 96, 76), (164, 160, 150), (132, 128, 126)))
    far_x = x + float(np.sign(x)) * 8
    canvas.poly(_frontal(camera, z1, x, 0, far_x, tall), scaled(color, 1.05), WALL, texture=0.25)
    canvas.poly(_plane(camera, x, z1, 0, z2, tall), scaled(color, 0.9), WALL, bottom=scaled(color, 0.7), texture=0.25)
    for height in np.arange(0.45, tall - 0.2, 0.45).tolist():
        canvas.line(camera.project([(x, height, z1), (x, height, z2)]), scaled(color, 0.62), 0.7)
        canvas.line(camera.project([(x, height, z1), (far_x, height, z1)]), scaled(color, 0.7), 0.7)
    canvas.poly(_plane(camera, x, z1, tall - 0.18, z2, tall), scaled(color, 1.2))


def draw_fence(canvas: Canvas, camera: Camera, x: float, z1: float, z2: float) -> None:
    """Draws a picket or rail fence along the street; the label covers its outline, gaps included, as in Cityscapes."""
    rng, tall = canvas.rng, float(canvas.rng.uniform(1.3, 2.1))
    color = pick(rng, ((226, 224, 216), (120, 84, 56), (66, 76, 72), (70, 110, 80)), 10)
    behind = mix(color, (64, 84, 56), 0.7)
    canvas.poly(_plane(camera, x, z1, 0.05, z2, tall), behind, FENCE, bottom=scaled(behind, 0.8))
    gap = float(rng.uniform(0.3, 0.5))
    pickets = [
        [(x, 0, z), (x, tall, z), (x, tall, z + 0.45 * gap), (x, 0, z + 0.45 * gap)]
        for z in np.arange(z1, z2, gap).tolist()
    ]
    canvas.polys(camera.project(pickets[:90]), scaled(color, 0.95))
    for height in (0.3 * tall, 0.8 * tall):
        canvas.poly(_plane(camera, x, z1, height - 0.07, z2, height + 0.07), scaled(color, 0.8))


def draw_tree(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """Draws a tree: a trunk and a crown of overlapping leafy blobs."""
    rng, tall = canvas.rng, float(canvas.rng.uniform(3.5, 7.5))
    if not -0.1 < float(camera.project((x, 0, z))[0]) / canvas.size[1] < 1.1:
        return
    green = jitter(rng, (74, 116, 56) if rng.random() < 0.85 else (164, 120, 48), 20)
    scale = camera.focal / z
    canvas.shadow(
        camera.project([(x - 1.2, 0, z - 0.5), (x + 1.6, 0, z - 0.5), (x + 1.6, 0, z + 0.7), (x - 1.2, 0, z + 0.7)]),
        0.6,
        0.2 * scale,
    )
    trunk = [(x - 0.18, 0, z), (x - 0.12, 0.6 * tall, z), (x + 0.12, 0.6 * tall, z), (x + 0.18, 0, z)]
    canvas.poly(camera.project(trunk), jitter(rng, (92, 68, 50), 10), VEGETATION)
    spread = tall * float(rng.uniform(0.24, 0.34))
    for shade, count in ((0.72, 4), (1.0, 4), (1.22, 3)):
        for _ in range(count):
            lift = (shade - 0.72) * 0.9
            middle = (
                x + rng.uniform(-0.7, 0.5) * spread,
                tall * (0.66 + lift * 0.3) + rng.uniform(-0.35, 0.5) * spread,
                z,
            )
            _leaves(canvas, camera.project(middle), spread * (0.62 - 0.25 * lift) * scale, scaled(green, shade))


def _leaves(canvas: Canvas, centre: np.ndarray, radius: float, color: Color) -> None:
    angle = np.linspace(0, 2 * np.pi, 17, endpoint=False)
    reach = radius * canvas.rng.uniform(0.78, 1.12, 17)
    outline = centre + np.stack([np.cos(angle), np.sin(angle) * 0.9], -1) * reach[:, None]
    grain = 0.35 if radius > 7 else 0.0  # far leaves are too small to show any
    canvas.poly(outline, scaled(color, 1.1), VEGETATION, bottom=scaled(color, 0.78), texture=grain)


def draw_hedge(canvas: Canvas, camera: Camera, x: float, z1: float, z2: float) -> None:
    """Draws a hedge with an uneven top along the street."""
    rng, green = canvas.rng, jitter(canvas.rng, (64, 102, 50), 16)
    depths = np.linspace(z1, z2, 9)
    tops = rng.uniform(1.2, 2.0) + rng.uniform(-0.22, 0.22, 9)
    outline = [(x, 0, z1), *((x, float(t), float(d)) for d, t in zip(depths, tops, strict=True)), (x, 0, z2)]
    far_x = x + float(np.sign(x)) * 6
    canvas.poly(_frontal(camera, z1, x, 0, far_x, float(tops[0])), scaled(green, 1.1), VEGETATION, texture=0.5)
    canvas.poly(camera.project(outline), green, VEGETATION, bottom=scaled(green, 0.7), texture=0.5)


def draw_mound(canvas: Canvas, camera: Camera, x: float, z1: float, z2: float) -> None:
    """Draws a grassy bank that rises from the street."""
    rng, side = canvas.rng, np.sign(x)
    grass = jitter(rng, (142, 150, 78) if rng.random() < 0.6 else (168, 150, 104), 14)
    rise = float(rng.uniform(0.6, 2.0))
    slope = [(x, 0, z1), (x + side * 9, rise, z1 + 1), (x + side * 16, rise, z2), (x, 0, z2)]
    canvas.poly(camera.project(slope), grass, TERRAIN, bottom=scaled(grass, 0.9), texture=0.35)


def draw_pole(canvas: Canvas, camera: Camera, x: float, z: float, *, lamp: bool, lit: bool) -> None:
    """Draws a post or a street lamp whose arm reaches over the road."""
    rng, scale, inward = canvas.rng, camera.focal / z, -float(np.sign(x))
    tall = float(rng.uniform(5.5, 7.5)) if lamp else float(rng.uniform(2.8, 6.0))
    width = float(rng.uniform(0.16, 0.26))
    color = pick(rng, (_METAL, (86, 92, 92), (146, 146, 142), (96, 78, 62)), 8)
    _post(canvas, camera, x, z, tall, width, color)
    if not lamp:
        return
    tip = (x + inward * 1.7, tall + 0.15, z)
    canvas.line(camera.project([(x, tall - 0.1, z), tip]), color, max(0.13 * scale, 1.0), POLE)
    head = camera.project(
        [
            (tip[0] - 0.45, tall, z),
            (tip[0] + 0.45, tall, z),
            (tip[0] + 0.35, tall + 0.25, z),
            (tip[0] - 0.35, tall + 0.25, z),
        ]
    )
    canvas.poly(head, (250, 236, 190) if lit else (210, 210, 206), POLE)
    if lit:
        canvas.glow(camera.project((tip[0], tall, z)), 1.1 * scale, (240, 200, 120))


def _post(canvas: Canvas, camera: Camera, x: float, z: float, tall: float, width: float, color: Color) -> None:
    width = max(width, 2.0 * z / camera.focal)  # never thinner than two pixels
    for share, shade in ((1.0, 1.0), (0.4, 1.3)):  # a lit streak on the left makes it round
        right = x - width / 2 + width * share
        canvas.poly(camera.project([(x - width / 2, 0, z), (x - width / 2, tall, z), (right, tall, z), (right, 0, z)]),
                    scaled(color, shade), POLE)  # fmt: skip


def draw_traffic_light(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """Draws a traffic light on a post, or hung from an arm over the road."""
    rng, scale = canvas.rng, camera.focal / z
    hung = rng.random() < 0.4
    tall = 5.2 if hung else float(rng.uniform(2.9, 3.5))
    _post(canvas, camera, x, z, tall, 0.2, _METAL)
    heads = [x]
    if hung:
        reach = x - np.sign(x) * rng.uniform(2.0, 4.2)
        canvas.line(camera.project([(x, tall - 0.1, z), (reach, tall - 0.1, z)]), _METAL, max(0.15 * scale, 1.2), POLE)
        heads.append(reach)
    burning = int(rng.choice([0, 1, 2], p=[0.45, 0.1, 0.45]))
    lamps = ((250, 52, 40), (252, 190, 50), (60, 232, 120))
    for middle in heads:
        half, top = 0.32, tall + 0.35
        canvas.begin(TRAFFIC_LIGHT, _METAL)
        canvas.poly(
            _frontal(camera, z - 0.05, middle - half, top - 1.75, middle + half, top), (26, 28, 30), TRAFFIC_LIGHT
        )
        for index, color in enumerate(lamps):
            centre = camera.project((middle, top - 0.35 - 0.53 * index, z - 0.05))
            canvas.disc(centre, 0.21 * scale, color if index == burning else scaled(color, 0.26))
            if index == burning:
                canvas.glow(centre, 0.5 * scale, color)


def draw_sign_post(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """Draws one or two traffic signs on a post."""
    rng = canvas.rng
    side, level = float(rng.uniform(0.85, 1.2)), float(rng.uniform(2.2, 2.9))
    count = 2 if rng.random() < 0.3 else 1
    _post(canvas, camera, x, z, level + side * count * 0.9, 0.11, _METAL)
    for index in range(count):
        low = level + index * side * 1.02
        canvas.begin(TRAFFIC_SIGN, _METAL)
        if rng.random() < 0.2:
            board = _frontal(camera, z - 0.05, x - side, low, x + side, low + side * 0.8)
            canvas.poly(board, (26, 92, 160), TRAFFIC_SIGN)
            for row in (0.25, 0.5):
                canvas.poly(
                    _frontal(
                        camera, z - 0.05, x - 0.7 * side, low + row * side, x + 0.6 * side, low + (row + 0.1) * side
                    ),
                    (240, 240, 240),
                )
            continue
        name = SIGN_NAMES[int(rng.integers(len(SIGN_NAMES)))]
        quad = camera.project(
            [
                (x - side / 2, low + side, z),
                (x + side / 2, low + side, z),
                (x + side / 2, low, z),
                (x - side / 2, low, z),
            ]
        )
        canvas.sprite(sign_face(name).sprite, quad, TRAFFIC_SIGN)
