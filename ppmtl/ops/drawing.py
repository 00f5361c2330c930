"""What tasks draw with: class colours and text on a coloured strip. numpy and OpenCV only."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from ppmtl.structures import ClassList

_CITYSCAPES = {  # the colours in which street scenes have been shown since Cityscapes; by name, so any order of classes works
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180),
    "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100),
    "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colors(classes: ClassList) -> np.ndarray:
    """(C, 3) uint8 RGB: the customary colour of a known street class, else one of its own (golden-angle hues)."""
    colors = [
        _CITYSCAPES.get(name)
        or tuple(round(255 * v) for v in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, 1 - 0.3 * (index % 2)))
        for index, name in enumerate(classes.names)
    ]
    return np.asarray(colors, np.uint8)


def class_legend(classes: ClassList) -> dict[str, tuple[int, int, int]]:
    """{class: its RGB colour}."""
    return {
        name: (int(r), int(g), int(b)) for name, (r, g, b) in zip(classes.names, class_colors(classes), strict=True)
    }


def write_text(
    canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, ...], *, above: bool = False
) -> None:
    """Writes text on a coloured strip whose corner is at (x, y), in place; inside the image even if the corner is not."""
    scale = max(0.35, max(canvas.shape) / 1600)
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width - 2))
    y = corner[1] - height - base - 2 if above and corner[1] >= height + base + 2 else max(0, corner[1])
    cv2.rectangle(canvas, (x, y), (x + width + 2, y + height + base + 2), color, -1)
    ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 1, y + height + 1), _FONT, scale, ink, 1, cv2.LINE_AA)


def write_lines(canvas: np.ndarray, text: str) -> None:
    """Writes a sentence along the lower edge on a darkened strip, in place, broken into lines that fit the width."""
    scale = max(0.35, max(canvas.shape) / 1600)
    (_, height), base = cv2.getTextSize("Ag", _FONT, scale, 1)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and cv2.getTextSize(longer, _FONT, scale, 1)[0][0] <= canvas.shape[1] - 4:
            lines[-1] = longer
        else:
            lines.append(word)
    step = height + base + 2
    top = max(0, canvas.shape[0] - step * len(lines) - 2)
    canvas[top:] //= 4
    for number, line in enumerate(lines):
        at = (2, top + step * number + height + 2)
        cv2.putText(canvas, line, at, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
