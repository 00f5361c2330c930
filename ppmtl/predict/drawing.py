"""Draws what several tasks found on one image. How a task draws is said in its own file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppmtl.ops.drawing import legend_panel
from ppmtl.structures import Sample
from ppmtl.tasks.base import Task


def draw(
    image: np.ndarray, predictions: Mapping[str, Any], tasks: Mapping[str, Task[Any]], threshold: float
) -> np.ndarray:
    """A copy of the image (H, W, 3) uint8 RGB with everything drawn on it: masks, then objects, then text.

    ``predictions`` are {task: prediction} in this image's coordinates; parts that score below ``threshold`` are left out.
    """
    canvas = image.copy()
    for name in sorted(predictions, key=lambda name: tasks[name].layer):
        canvas = tasks[name].draw(canvas, predictions[name], threshold)
    return canvas


def with_legend(drawn: np.ndarray, predictions: Mapping[str, Any], tasks: Mapping[str, Task[Any]]) -> np.ndarray:
    """The drawn image (H, W, 3) with the colours and names of the classes in its masks to its right; itself without masks."""
    masks = {name: mask for name, found in predictions.items() if (mask := tasks[name].mask(found)) is not None}
    legend = {}
    for name, mask in masks.items():
        shown = set(np.unique(mask).tolist())
        for index, (title, color) in enumerate(tasks[name].legend().items()):
            if index in shown:
                legend[title if len(masks) == 1 else f"{name}: {title}"] = color
    return np.hstack([drawn, legend_panel(legend, drawn)])


def draw_sample(
    sample: Sample, predictions: Mapping[str, Any], tasks: Mapping[str, Task[Any]], threshold: float
) -> np.ndarray:
    """Labels (left) and predictions (right) of one image side by side, (H, 2W + 4, 3) uint8 RGB."""
    truth = {name: tasks[name].truth(sample.labels[name]) for name in predictions if name in sample.labels}
    image = sample.image.astype(np.uint8)
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    return np.hstack([draw(image, truth, tasks, threshold), gap, draw(image, predictions, tasks, threshold)])
