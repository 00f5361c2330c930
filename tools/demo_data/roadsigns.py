"""Street scenes with traffic signs and their exact boxes: the detection pictures."""

from __future__ import annotations

import numpy as np

from demo_data.draw import Camera, Canvas, Color, jitter, scaled
from demo_data.scene import draw_street
from demo_data.signs import Sign, sign_face, sign_names
from demo_data.weather import develop
from ppmtl.structures import Size

_STEEL: Color = (122, 126, 130)
_SIGN_METRES = 0.8
_NEGATIVE_SHARE = 0.12  # pictures without any sign: a detector must learn to stay silent


def render_signs(
    rng: np.random.Generator, size: Size, num_classes: int, first_label: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a street scene with 0 to 6 traffic signs.

    Args:
        rng: the only source of chance.
        size: (height, width) in pixels.
        num_classes: how many sign classes there are, 1..45.
        first_label: class index of the first sign of a picture that has any; chance decides when None.

    Returns:
        (H, W, 3) uint8 RGB; (N, 4) float32 xyxy pixels, tight around each plate as if nothing stood before it;
        (N,) int64 class indices.
    """
    names = sign_names(num_classes)
    canvas, camera, conditions = draw_street(rng, size, signs=False, busy=0.5)
    count = (
        0
        if rng.random() < _NEGATIVE_SHARE
        else int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.2, 0.24, 0.22, 0.16, 0.1, 0.08]))
    )
    labels_to_place = [int(label) for label in rng.integers(num_classes, size=count)]
    if labels_to_place and first_label is not None:
        labels_to_place[0] = first_label
    # None is a distractor. Small = far first: then a near post may hide a far sign's post, never a plate
    things: list[int | None] = [*labels_to_place, *[None] * int(rng.integers(1, 5))]
    sides = [_draw_side(canvas, sign=thing is not None) for thing in things]
    taken: list[np.ndarray] = []
    boxes, labels = [], []
    for index in np.argsort(sides).tolist():
        thing, side = things[index], sides[index]
        if thing is None:
            _place_distractor(canvas, camera, side, taken)
            continue
        box = _place_sign(canvas, camera, sign_face(names[thing]), side, taken)
        if box is not None:
            boxes.append(box)
            labels.append(thing)
    picture = develop(canvas, conditions, rng)
    return picture, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def _free_square(canvas: Canvas, camera: Camera, side: float, taken: list[np.ndarray]) -> np.ndarray | None:
    """Returns the corner of a square clear of what stands there already, or None when ten tries find no place.

    The square hangs 1.5 to 6 m above the ground for a sign of 0.8 m, so that sizes and places agree with the camera.
    """
    rng, (height, width) = canvas.rng, canvas.size
    for _ in range(10):
        x, lift = rng.uniform(2, width - side - 2), rng.uniform(1.5, 6.0)
        y = camera.horizon + (camera.height - lift) * side / _SIGN_METRES - side
        y = max(y, rng.uniform(2, 0.1 * height))
        square = np.array([x, y, x + side, y + side])
        post = np.array([x + 0.4 * side, y, x + 0.6 * side, _foot(camera, side)])
        if not any(_overlap(square, other, 0.08 * side) or _overlap(post, other, 1.0) for other in taken):
            taken.append(square)
            return np.array([x, y])
    return None


def _overlap(a: np.ndarray, b: np.ndarray, gap: float) -> bool:
    return bool((a[:2] < b[2:] + gap).all() and (b[:2] < a[2:] + gap).all())


def _foot(camera: Camera, side: float) -> float:
    """Returns the row where the post of a sign that is ``side`` pixels wide meets the ground."""
    return camera.horizon + camera.height * side / _SIGN_METRES


def _tilted(rng: np.random.Generator, points: np.ndarray, corner: np.ndarray, side: float) -> np.ndarray:
    """Returns unit-square points as pixels of a sign that is turned sideways and leans a little."""
    turn, lean = rng.uniform(0.76, 1.0), rng.normal(0, 0.05)
    middle = (points - 0.5) * [turn, 1.0]
    rotation = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    # 0.92: the corners of a leaning square stay inside the reserved one
    return np.asarray(corner + side * (0.5 + 0.92 * middle @ rotation.T))


def _draw_side(canvas: Canvas, *, sign: bool) -> float:
    """Returns a plate's side in pixels: 16 to 82 for signs of a 512 px picture, small ones more often."""
    share = canvas.rng.random()
    return min(canvas.size) / 512 * float(16 + 66 * share**1.3 if sign else 18 + 62 * share)


def _post(canvas: Canvas, camera: Camera, corner: np.ndarray, side: float) -> None:
    x, y = corner + [0.5 * side, 0.6 * side]
    width = max(1.2, 0.09 * side)
    foot = _foot(camera, side)
    color = jitter(canvas.rng, _STEEL, 14)
    canvas.poly([(x - width / 2, y), (x + width / 2, y), (x + width / 2, foot), (x - width / 2, foot)], color)
    canvas.poly(
        [(x - width / 2, y), (x - width / 6, y), (x - width / 6, foot), (x - width / 2, foot)], scaled(color, 1.25)
    )


def _place_sign(canvas: Canvas, camera: Camera, sign: Sign, side: float, taken: list[np.ndarray]) -> np.ndarray | None:
    rng = canvas.rng
    corner = _free_square(canvas, camera, side, taken)
    if corner is None:
        return None
    if rng.random() < 0.93:
        _post(canvas, camera, corner, side)
    unit = np.concatenate([np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64), sign.outline])
    pixels = _tilted(rng, unit, corner, side)
    quad, plate = pixels[:4], pixels[4:]
    if rng.random() < 0.15:  # a grey board behind the sign
        middle = quad.mean(axis=0)
        canvas.poly(middle + (quad - middle) * 1.12, jitter(rng, (150, 152, 150), 20))
    canvas.sprite(sign.sprite, quad)
    box: np.ndarray = np.concatenate([plate.min(axis=0), plate.max(axis=0)])
    if rng.random() < 0.2:
        _occlude(canvas, box)
    return box


def _occlude(canvas: Canvas, box: np.ndarray) -> None:
    """Covers up to about a third of a sign with twigs or a post."""
    rng = canvas.rng
    wide, tall = box[2:] - box[:2]
    if rng.random() < 0.4:
        x = box[0] + wide * rng.uniform(0.05, 0.85)
        band = wide * rng.uniform(0.08, 0.2)
        outline = [(x, box[1] - tall), (x + band, box[1] - tall), (x + band, box[3] + 2 * tall), (x, box[3] + 2 * tall)]
        canvas.poly(outline, jitter(rng, (92, 88, 82), 20))
        return
    corner = box[[0, 2]][int(rng.integers(2))], box[[1, 3]][int(rng.integers(2))]
    green = jitter(rng, (70, 112, 54), 20)
    for _ in range(5):
        angle = np.linspace(0, 2 * np.pi, 11, endpoint=False)
        reach = 0.24 * wide * rng.uniform(0.6, 1.1, (11, 1))
        middle = np.array(corner) + rng.uniform(-0.22, 0.22, 2) * wide
        canvas.poly(middle + reach * np.stack([np.cos(angle), np.sin(angle)], -1), scaled(green, rng.uniform(0.7, 1.2)))


def _place_distractor(canvas: Canvas, camera: Camera, side: float, taken: list[np.ndarray]) -> None:
    """Draws something sign-like that is no sign: an advertisement, the back of a sign, a mirror, a pennant."""
    rng = canvas.rng
    corner = _free_square(canvas, camera, side, taken)
    if corner is None:
        return
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = 0.5 + 0.46 * np.stack([np.cos(angle), np.sin(angle)], -1)
    triangle = np.array([[0.5, 0.08], [0.95, 0.9], [0.05, 0.9]])
    board = np.array([[0.02, 0.2], [0.98, 0.2], [0.98, 0.8], [0.02, 0.8]])
    outline = (circle, triangle, board)[int(rng.choice(3, p=[0.45, 0.25, 0.3]))]
    kind = int(rng.integers(3))
    _post(canvas, camera, corner, side)
    pixels = _tilted(rng, outline, corner, side)
    middle = pixels.mean(axis=0)
    if kind == 0:  # the back of a sign
        canvas.poly(pixels, jitter(rng, (140, 144, 148), 16), bottom=jitter(rng, (104, 108, 112), 12))
        canvas.line([middle - [0.3 * side, 0], middle + [0.3 * side, 0]], (84, 88, 92), 0.05 * side)
    elif kind == 1:  # an advertisement in colours that no sign has
        ground = jitter(
            rng, ((124, 52, 150), (36, 150, 110), (240, 130, 40), (236, 110, 160))[int(rng.integers(4))], 18
        )
        canvas.poly(pixels, ground, bottom=scaled(ground, 0.8))
        for shrink, color in ((0.66, (250, 246, 236)), (0.36, scaled(ground, 0.7))):
            canvas.poly(middle + (pixels - middle) * shrink, color)
    else:  # a traffic mirror, a clock, a company's plain disc
        canvas.poly(pixels, jitter(rng, (214, 120, 40), 16))
        canvas.poly(middle + (pixels - middle) * 0.85, (176, 198, 214), bottom=(92, 100, 98))
