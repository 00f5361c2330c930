"""AutoAugment's policy for ImageNet: 25 pairs of operations, each with its probability and level.

Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019: table 9 (the policy), section 4 (ten
levels spread evenly over each operation's range).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ppmtl.data.canvas import Canvas
from ppmtl.ops import affine

_LAST_LEVEL = 9


class Step(NamedTuple):
    """One operation, how likely it is, and its level, 0 to 9."""

    operation: str
    probability: float
    level: int


_EQUALIZE_TWICE = (Step("equalize", 0.8, 8), Step("equalize", 0.6, 3))
_SOLARIZE = (Step("solarize", 0.6, 5), Step("autocontrast", 0.6, 5))
_EQUALIZE_SOLARIZE = (Step("equalize", 0.4, 7), Step("solarize", 0.2, 4))
_INVERT = (Step("invert", 0.6, 4), Step("equalize", 1.0, 8))
_COLOR_CONTRAST = (Step("color", 0.6, 4), Step("contrast", 1.0, 8))

IMAGENET: tuple[tuple[Step, Step], ...] = (  # five of them stand twice in the paper's table
    (Step("posterize", 0.4, 8), Step("rotate", 0.6, 9)),
    _SOLARIZE,
    _EQUALIZE_TWICE,
    (Step("posterize", 0.6, 7), Step("posterize", 0.6, 6)),
    _EQUALIZE_SOLARIZE,
    (Step("equalize", 0.4, 4), Step("rotate", 0.8, 8)),
    (Step("solarize", 0.6, 3), Step("equalize", 0.6, 7)),
    (Step("posterize", 0.8, 5), Step("equalize", 1.0, 2)),
    (Step("rotate", 0.2, 3), Step("solarize", 0.6, 8)),
    (Step("equalize", 0.6, 8), Step("posterize", 0.4, 6)),
    (Step("rotate", 0.8, 8), Step("color", 0.4, 0)),
    (Step("rotate", 0.4, 9), Step("equalize", 0.6, 2)),
    (Step("equalize", 0.0, 7), Step("equalize", 0.8, 8)),
    _INVERT,
    _COLOR_CONTRAST,
    (Step("rotate", 0.8, 8), Step("color", 1.0, 2)),
    (Step("color", 0.8, 8), Step("solarize", 0.8, 7)),
    (Step("sharpness", 0.4, 7), Step("invert", 0.6, 8)),
    (Step("shear_x", 0.6, 5), Step("equalize", 1.0, 9)),
    (Step("color", 0.4, 0), Step("equalize", 0.6, 3)),
    _EQUALIZE_SOLARIZE,
    _SOLARIZE,
    _INVERT,
    _COLOR_CONTRAST,
    _EQUALIZE_TWICE,
)


def apply(step: Step, canvas: Canvas, sign: int) -> None:
    """Carries out one operation at its level; ``sign`` (1 or -1) is the way of those that have two."""
    share = step.level / _LAST_LEVEL
    if step.operation == "rotate":
        height, width = canvas.size
        canvas.move(affine.rotation(sign * 30 * share, (width / 2, height / 2)), canvas.size)
    elif step.operation == "shear_x":
        canvas.move(np.array([[1, sign * 0.3 * share, 0], [0, 1, 0]], np.float64), canvas.size)
    else:
        pixels = np.clip(canvas.image, 0, 255).astype(np.uint8)
        canvas.image = np.asarray(_COLOUR[step.operation](Image.fromarray(pixels), share, 1 + sign * 0.9 * share))


_COLOUR: dict[
    str, Callable[[Image.Image, float, float], Image.Image]
] = {  # image, share of the range, enhancement factor
    "posterize": lambda image, share, _: ImageOps.posterize(image, round(8 - 4 * share)),
    "solarize": lambda image, share, _: ImageOps.solarize(image, round(256 * (1 - share))),
    "autocontrast": lambda image, *_: ImageOps.autocontrast(image),
    "equalize": lambda image, *_: ImageOps.equalize(image),
    "invert": lambda image, *_: ImageOps.invert(image),
    "color": lambda image, _, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, _, factor: ImageEnhance.Contrast(image).enhance(factor),
    "sharpness": lambda image, _, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
