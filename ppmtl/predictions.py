"""Predictions as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppmtl.structures import ClassList, ClassProbs, Detections, Prediction


def to_json(prediction: Prediction, classes: ClassList, *, top: int = 5) -> dict[str, Any]:
    """Returns what one task found in one picture.

    Detection: {"boxes": [{"bbox" xyxy original pixels, "score", "class", "category_id"}]}, best first.
    Classification: {"top": [{"class", "score"}]}, the ``top`` best.
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
                    "category_id": classes.ids[label],
                }
                for box, score, label in rows
            ]
        }
    if isinstance(prediction, ClassProbs):
        best = np.argsort(-prediction.probs, kind="stable")[:top]
        return {"top": [{"class": classes.names[i], "score": round(float(prediction.probs[i]), 5)} for i in best]}
    counts = np.bincount(prediction.labels.ravel(), minlength=len(classes))
    return {
        "classes": {
            classes.names[i]: round(float(counts[i]) / prediction.labels.size, 5)
            for i in np.argsort(-counts)
            if counts[i]
        }
    }
