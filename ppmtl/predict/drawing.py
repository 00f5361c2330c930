"""Draws labels and predictions on pictures. numpy and OpenCV only: deployment uses it too."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import cv2
import numpy as np

from ppmtl.structures import IGNORE_LABEL, ClassList, ClassProbs, Detections, Prediction, Sample, SegMap
from ppmtl.tasks.base import Task

_CITYSCAPES = {  # the colours in which street scenes have been shown since Cityscapes; by name, so any order of classes works
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180),
    "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100),
    "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colors(classes: ClassList) -> np.ndarray:
    """Returns (C, 3) uint8 RGB: the customary colour of a known street class, else one of its own (golden-angle hues)."""
    colors = [
        _CITYSCAPES.get(name)
        or tuple(round(255 * v) for v in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, 1 - 0.3 * (index % 2)))
        for index, name in enumerate(classes.names)
    ]
    return np.asarray(colors, np.uint8)


def draw(
    image: np.ndarray, predictions: Mapping[str, Prediction], tasks: Mapping[str, Task], threshold: float
) -> np.ndarray:
    """Returns a copy of the picture with masks, then boxes with names, then the class in the corner.

    Args:
        image: (H, W, 3) uint8 RGB.
        predictions: {task: prediction} in this picture's coordinates.
        tasks: {name: task}, for the class names.
        threshold: boxes below this score are not drawn.
    """
    canvas = image.copy()
    order = sorted(predictions.items(), key=lambda item: [SegMap, Detections, ClassProbs].index(type(item[1])))
    for name, prediction in order:
        classes = tasks[name].classes
        if isinstance(prediction, SegMap):
            canvas = _draw_map(canvas, prediction.labels, classes)
        elif isinstance(prediction, Detections):
            _draw_boxes(canvas, prediction, classes, threshold)
        else:
            best = int(prediction.probs.argmax())
            _caption(canvas, f"{classes.names[best]} {prediction.probs[best]:.2f}", (4, 4), (32, 32, 32))
    return canvas


def draw_sample(
    sample: Sample, predictions: Mapping[str, Prediction], tasks: Mapping[str, Task], threshold: float
) -> np.ndarray:
    """Returns labels (left) and predictions (right) of one picture side by side, (H, 2W + 4, 3) uint8 RGB."""
    truth: dict[str, Prediction] = {}
    for name in predictions:
        if sample.label_map is not None and tasks[name].task_type == "segmentation":
            truth[name] = SegMap(sample.label_map)
        if sample.boxes is not None and sample.box_labels is not None and tasks[name].task_type == "detection":
            truth[name] = Detections(sample.boxes, np.ones(len(sample.boxes), np.float32), sample.box_labels)
        if sample.class_index is not None and tasks[name].task_type == "classification":
            truth[name] = ClassProbs(np.eye(len(tasks[name].classes), dtype=np.float32)[sample.class_index])
    image = sample.image.astype(np.uint8)
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    return np.hstack([draw(image, truth, tasks, threshold), gap, draw(image, predictions, tasks, threshold)])


def _draw_map(image: np.ndarray, labels: np.ndarray, classes: ClassList, opacity: float = 0.5) -> np.ndarray:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = class_colors(classes)
    blended = cv2.addWeighted(image, 1 - opacity, palette[labels], opacity, 0)
    return np.where((labels == IGNORE_LABEL)[..., None], image, blended)


def _draw_boxes(canvas: np.ndarray, found: Detections, classes: ClassList, threshold: float) -> None:
    colors = class_colors(classes)
    for box, score, label in zip(found.boxes[::-1], found.scores[::-1], found.labels[::-1], strict=True):
        if score < threshold:
            continue
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        color = tuple(int(v) for v in colors[label])
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, max(1, round(max(canvas.shape) / 500)), cv2.LINE_AA)
        _caption(canvas, f"{classes.names[label]} {score:.2f}", (x1, y1), color, above=True)


def _caption(
    canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, ...], *, above: bool = False
) -> None:
    """Writes text on a coloured strip whose corner is at (x, y); inside the picture even if the corner is not."""
    scale = max(0.35, max(canvas.shape) / 1600)
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width - 2))
    y = corner[1] - height - base - 2 if above and corner[1] >= height + base + 2 else max(0, corner[1])
    cv2.rectangle(canvas, (x, y), (x + width + 2, y + height + base + 2), color, -1)
    ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 1, y + height + 1), _FONT, scale, ink, 1, cv2.LINE_AA)
