"""Bundles whose graph files hold a few bytes: enough for everything but running them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ppmtl.bundle.settings import SUFFIXES, write_settings


def document(graph_format: str = "paddle", **changes: Any) -> dict[str, Any]:
    """An infer_cfg.yml with three heads, as exports wrote it before features had names."""
    files = [stem + s for stem in ("trunk", "head_seg", "head_cls", "head_det") for s in SUFFIXES[graph_format]]
    return {
        "format": 1,
        "name": "small",
        "graph_format": graph_format,
        "trunk": {"file": "trunk", "outputs": ["feature_0", "feature_1"]},
        "heads": {
            "seg": {"file": "head_seg", "inputs": ["feature_0", "feature_1", "image_size"], "outputs": ["probs"]},
            "cls": {"file": "head_cls", "inputs": ["feature_1"], "outputs": ["probs"]},
            "det": {"file": "head_det", "inputs": ["feature_0", "image_size"], "outputs": ["boxes", "scores"]},
        },
        "tasks": {
            "seg": {"type": "segmentation", "average": "logits"},
            "cls": {"type": "classification", "long_side": 64, "tta": {"scales": [1.0, 1.5]}},
            "det": {"type": "detection", "input_size": [96, 96], "nms_iou": 0.5},
        },
        "classes": {
            "seg": {"names": ["road", "sky"], "ids": [0, 1]},
            "cls": {"names": ["car", "van"], "ids": [0, 1]},
            "det": {"names": ["stop", "give way"], "ids": [4, 9]},
        },
        "infer": {"size": [64, 96], "draw_threshold": 0.4},
        "versions": {"ppmtl": "0"},
        "source": {"config": "small.yml", "weights": "best", "weights_sha256": "0"},
        "files": [{"name": n, "sha256": hashlib.sha256(n.encode()).hexdigest(), "bytes": len(n)} for n in files],
        **changes,
    }


def write_folder(folder: Path, **changes: Any) -> Path:
    """``folder`` with a bundle; every graph file holds its own name."""
    folder.mkdir(parents=True)
    content = document(**changes)
    for record in content["files"]:
        (folder / record["name"]).write_text(record["name"])
    write_settings(folder, content)
    return folder
