"""Predictions -> the JSON of an answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ppmtl.structures import Size
from ppmtl.tasks.base import Task
from ppmtl_service.schema import MaskEncoding, Wanted


def encode_result(
    name: str, size: Size, predictions: Mapping[str, Any], tasks: Mapping[str, Task[Any]], wanted: Wanted
) -> bytes:
    """One image's entry of "results" as JSON; ``size`` is its (height, width)."""
    document: dict[str, Any] = {"file": name, "height": size[0], "width": size[1]}
    for task, prediction in predictions.items():
        document[task] = tasks[task].to_json(prediction, threshold=wanted.threshold)
        mask = tasks[task].mask(prediction)
        if mask is not None and wanted.mask != "none":
            document[task]["mask"] = encode_mask(mask, wanted.mask)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def encode_mask(labels: np.ndarray, encoding: MaskEncoding) -> dict[str, Any]:
    """A mask as JSON values.

    Args:
        labels: (H, W) uint8.
        encoding: "png" gives an 8-bit single-channel PNG in base64; "rle" run lengths, see :func:`run_lengths`.
    """
    if encoding == "png":
        data = cv2.imencode(".png", labels)[1].tobytes()
        return {"encoding": "png", "data": base64.b64encode(data).decode("ascii")}
    return {"encoding": "rle", "size": list(labels.shape), "counts": run_lengths(labels)}


def run_lengths(labels: np.ndarray) -> list[int]:
    """[value, length, value, length, ...] of the pixels of an (H, W) map in row-major order; runs go on over line ends."""
    flat = labels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    pairs: list[int] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
    return pairs
