"""Predictions -> the JSON of an answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ppmtl.predict.predictions import to_json
from ppmtl.structures import Detections, Prediction, SegMap, Size
from ppmtl.tasks.base import Task
from ppmtl_service.wanted import MaskEncoding, Wanted


def encode_result(
    name: str, size: Size, predictions: Mapping[str, Prediction], tasks: Mapping[str, Task], wanted: Wanted
) -> bytes:
    """Returns one picture's entry of "results" as JSON."""
    document: dict[str, Any] = {"file": name, "height": size[0], "width": size[1]}
    for task, prediction in predictions.items():
        shown = above(prediction, wanted.threshold) if isinstance(prediction, Detections) else prediction
        document[task] = to_json(shown, tasks[task].classes)
        if isinstance(prediction, SegMap) and wanted.mask != "none":
            document[task]["mask"] = encode_mask(prediction.labels, wanted.mask)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def above(found: Detections, threshold: float) -> Detections:
    """Returns the detections whose score is at least ``threshold``."""
    keep = found.scores >= threshold
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])


def encode_mask(labels: np.ndarray, encoding: MaskEncoding) -> dict[str, Any]:
    """Returns a label map as JSON values.

    Args:
        labels: (H, W) uint8 class indices.
        encoding: "png" gives an 8-bit single-channel PNG in base64; "rle" run lengths, see :func:`run_lengths`.
    """
    if encoding == "png":
        data = cv2.imencode(".png", labels)[1].tobytes()
        return {"encoding": "png", "data": base64.b64encode(data).decode("ascii")}
    return {"encoding": "rle", "size": list(labels.shape), "counts": run_lengths(labels)}


def run_lengths(labels: np.ndarray) -> list[int]:
    """Returns [class, length, class, length, ...] of the pixels in row-major order; runs go on over line ends.

    Args:
        labels: (H, W) uint8; may be empty.
    """
    flat = labels.ravel()
    if not flat.size:
        return []
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    pairs: list[int] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
    return pairs
