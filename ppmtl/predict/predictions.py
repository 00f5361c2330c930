"""Predictions as plain JSON values, and as files beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppmtl.predict.drawing import draw
from ppmtl.structures import ClassList, ClassProbs, Detections, Prediction, SegMap
from ppmtl.tasks.base import Task


def to_json(prediction: Prediction, classes: ClassList, *, top: int = 5) -> dict[str, Any]:
    """Returns what one task found in one picture.

    Detection, best first: {"boxes": [{"bbox" xyxy original pixels, "score", "class", "class_index", "category_id"}]}.
    Classification: {"top": [{"class", "class_index", "score"}]}, the ``top`` best.
    Segmentation: {"classes": {name: share of the picture}} for classes that occur; the map itself goes into a PNG.
    """
    if isinstance(prediction, Detections):
        rows = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True)
        return {
            "boxes": [
                {
                    "bbox": [round(v, 2) for v in box],
                    "score": round(score, 5),
                    "class": classes.names[label],
                    "class_index": label,
                    "category_id": classes.ids[label],
                }
                for box, score, label in rows
            ]
        }
    if isinstance(prediction, ClassProbs):
        best = np.argsort(-prediction.probs, kind="stable")[:top]
        return {
            "top": [
                {"class": classes.names[i], "class_index": int(i), "score": round(float(prediction.probs[i]), 5)}
                for i in best
            ]
        }
    counts = np.bincount(prediction.labels.ravel(), minlength=len(classes))
    return {
        "classes": {
            classes.names[i]: round(float(counts[i]) / prediction.labels.size, 5)
            for i in np.argsort(-counts)
            if counts[i]
        }
    }


def write(
    target: Path,
    image: np.ndarray,
    predictions: Mapping[str, Prediction],
    tasks: Mapping[str, Task],
    threshold: float,
    extra: Mapping[str, Any],
) -> Path:
    """Writes <target>.jpg (drawn), <target>.json and a label PNG per segmentation task; returns the drawn picture's path.

    Args:
        target: path without suffix.
        image: (H, W, 3) uint8 RGB, the original.
        predictions: {task: prediction}.
        tasks: {name: task}, for class names.
        threshold: boxes below it are not drawn; the JSON has them all.
        extra: what else the JSON records.
    """
    document: dict[str, Any] = {**extra, "size": list(image.shape[:2])}
    for name, prediction in predictions.items():
        document[name] = to_json(prediction, tasks[name].classes)
        if isinstance(prediction, SegMap):
            document[name]["label_png"] = f"{target.name}_{name}.png"
            cv2.imencode(".png", prediction.labels)[1].tofile(f"{target}_{name}.png")
    drawn = Path(f"{target}.jpg")
    cv2.imencode(".jpg", draw(image, predictions, tasks, threshold)[..., ::-1])[1].tofile(drawn)
    Path(f"{target}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    return drawn
