"""A few tiny street images with label maps, boxes and classes, and a config that trains all of them from one data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

SIZE = 64


def write_streets(folder: Path, count: int = 6) -> None:
    """Images of a bright square (class "sign", "car" where it is large) on noise: label map, box and list entry agree."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, boxes, lines = [], [], []
    for index in range(count):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 80, (SIZE, SIZE, 3), np.uint8)
        side = 16 + 16 * (index % 2)
        x, y = (int(v) for v in rng.integers(0, SIZE - side, 2))
        image[y : y + side, x : x + side] = 220
        label = np.zeros((SIZE, SIZE), np.uint8)
        label[y : y + side, x : x + side] = 1
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image)
        cv2.imwrite(str(folder / "labels" / f"{index}.png"), label)
        images.append({"id": index, "file_name": f"{index}.png", "height": SIZE, "width": SIZE})
        boxes.append({"image_id": index, "category_id": 1, "bbox": [x, y, side, side]})
        lines.append(f"{index}.png {index % 2}")
    (folder / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    (folder / "list.txt").write_text("\n".join(lines))


def config(folder: Path, **changes: Any) -> Path:
    """Writes a config with one source, three tasks and two views; ``changes`` replace top-level keys."""
    joined = {
        "type": "joined",
        "readers": {
            "seg": {"type": "label_png", "images": "images", "labels": "labels"},
            "det": {"type": "coco", "images": "images", "annotations": "boxes.json"},
            "cls": {"type": "image_list", "images": "images", "list_file": "list.txt"},
        },
    }
    flip = {"type": "horizontal_flip"}
    content: dict[str, Any] = {
        "data_root": str(folder),
        "save_dir": str(folder / "run"),
        "device": "cpu",
        "tasks": {
            "seg": {"type": "segmentation", "classes": {"names": ["road", "square"]}},
            "det": {"type": "detection", "classes": {"names": ["square"], "ids": [1]}},
            "cls": {"type": "classification", "classes": {"names": ["sign", "car"]}},
        },
        "model": {
            "backbone": {"type": "convnext", "depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "layer_scale_init": 1.0,
                         "drop_path_rate": 0.1, "kernel_size": 3},
            "heads": {
                "seg": {"type": "upernet", "channels": 8, "aux_channels": 8},
                "det": {"type": "yolov5", "neck": {"type": "yolocsppan", "depth_multiplier": 0.33, "channels": [8, 16, 16]}},
                "cls": {"type": "cbam_fc", "channels": 16},
            },
        },
        "sources": {
            "street": {
                "dataset": joined,
                "batch_size": 2,
                "views": {
                    "strong": {"tasks": ["seg", "det"], "transforms": [{"type": "random_scale"},
                               {"type": "pad_crop", "size": [SIZE, SIZE]}, flip, {"type": "color_jitter"}]},
                    "weak": {"tasks": ["cls"], "transforms": [flip]},
                },
            }
        },
        "optimizer": {"learning_rate": 0.002, "warmup_steps": 1},
        "train": {"epochs": 2, "steps_per_epoch": 2, "log_every": 1, "eval_every": 2, "save_every": 2, "num_workers": 0,
                  "ema_decay": 0.9},
        "eval": {"datasets": {"street": {**joined, "tasks": ["seg", "det", "cls"]}}, "batch_size": 2},
    }  # fmt: skip
    path = folder / "streets.yml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path
