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
_SMALLEST = 0.3  # scale of letters; smaller ones cannot be read
_SHARE = 3  # a sentence takes at most one in so many rows of an image


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
    canvas: np.ndarray,
    text: str,
    corner: tuple[int, int],
    color: tuple[int, ...],
    *,
    end: str = "",
    above: bool = False,
) -> None:
    """Writes text and its ``end`` on a coloured strip with its corner at (x, y), in place; inside the image even if it is not.

    A text wider than the image is written smaller, then cut; its ``end``, a score, stays.
    """
    scale, room = _usual_scale(canvas), canvas.shape[1] - 4
    scale = max(min(scale, _SMALLEST), scale * min(1, room / max(1, _width(text + end, scale))))
    if _width(text + end, scale) > room:
        while text and _width(f"{text}..{end}", scale) > room:
            text = text[:-1]
        text += ".."
    (width, height), base = cv2.getTextSize(text + end, _FONT, scale, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width - 2))
    y = corner[1] - height - base - 2 if above and corner[1] >= height + base + 2 else max(0, corner[1])
    cv2.rectangle(canvas, (x, y), (x + width + 2, y + height + base + 2), color, -1)
    ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
    cv2.putText(canvas, text + end, (x + 1, y + height + 1), _FONT, scale, ink, 1, cv2.LINE_AA)


def write_lines(canvas: np.ndarray, text: str, end: str = "") -> None:
    """Writes a sentence and its ``end`` along the lower edge on a darkened strip, in place, in lines that fit the width.

    The strip takes at most a third of the image: a long sentence is written smaller, then cut; its ``end``, a score, stays.
    """
    height, width = canvas.shape[0] // _SHARE, canvas.shape[1] - 4
    for factor in (1.0, 0.85, 0.7, 0.0):
        scale = max(_usual_scale(canvas) * factor, _SMALLEST)
        step = _line_height(scale)
        lines = _wrapped(f"{text} {end}", width, scale)
        if step * len(lines) + 2 <= height:
            break
    kept = text
    while kept and step * len(lines) + 2 > height:
        kept = kept[:-1]
        lines = _wrapped(f"{kept}.. {end}", width, scale)
    top = max(0, canvas.shape[0] - step * len(lines) - 2)
    canvas[top:] //= 4
    for number, line in enumerate(lines, 1):
        at = (2, top + step * number - step // 4)
        cv2.putText(canvas, line, at, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def legend_panel(legend: dict[str, tuple[int, int, int]], image: np.ndarray) -> np.ndarray:
    """{name: RGB colour} as a white panel (H, w, 3) as high as ``image``, in as many columns as it needs; w may be 0."""
    scale = _usual_scale(image)
    step, height = _line_height(scale) + 2, int(image.shape[0])
    rows = max(1, (height - 2) // step)
    names, panels = list(legend), [np.zeros((height, 0, 3), np.uint8)]
    for start in range(0, len(names), rows):
        column = names[start : start + rows]
        panel = np.full((height, step + 8 + max(_width(name, scale) for name in column), 3), 255, np.uint8)
        for number, name in enumerate(column):
            y = 2 + number * step
            cv2.rectangle(panel, (3, y), (step - 2, y + step - 4), legend[name], -1)
            cv2.putText(panel, name, (step + 3, y + step * 3 // 4 - 1), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(panel)
    return np.hstack(panels)


def _usual_scale(canvas: np.ndarray) -> float:
    return max(0.35, float(max(canvas.shape)) / 1600)


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])


def _line_height(scale: float) -> int:
    (_, height), base = cv2.getTextSize("Ag", _FONT, scale, 1)
    return int(height + base + 2)


def _wrapped(text: str, width: int, scale: float) -> list[str]:
    """The text in lines of at most ``width`` pixels; a word that is longer is broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if _width(longer, scale) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and _width(lines[-1] + letter, scale) > width:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]
