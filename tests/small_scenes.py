"""A few tiny images with instances, label maps and captions, and a config of the yolov7_af family that trains all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from small_model import write_weights

SIZE = (64, 96)
# Factors as in small_model.py
SPREAD = {
    "heads.captions.words.4.weight": 6,
    "heads.captions.embedding.words.weight": 20,
    "heads.captions.decoder.layers.0.image_attention.value.weight": 20,
    **{f"heads.instances.detection.classes.{level}.output.weight": 5 for level in range(3)},
    "heads.semantic.classifier.weight": 10,
}
COLOURS = {"red": (40, 40, 220), "blue": (220, 60, 40), "yellow": (40, 210, 220)}


def write_scenes(folder: Path, count: int = 6) -> None:
    """Images of a square and a triangle on noise, each with its polygon, its pixels and two sentences."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, things, captions = [], [], []
    for index in range(count):
        rng = np.random.default_rng(index)
        image, label = rng.integers(0, 80, (*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
        names = [list(COLOURS)[i] for i in rng.permutation(3)[:2]]
        for kind, colour in enumerate(names):
            side = int(rng.integers(20, 36))
            x, y = 48 * kind + int(rng.integers(0, 48 - side)), int(rng.integers(0, SIZE[0] - side))
            corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]][kind:]
            cv2.fillPoly(image, [np.array(corners)], COLOURS[colour])
            cv2.fillPoly(label, [np.array(corners)], kind + 1)
            flat = [float(v) for corner in corners for v in corner]
            things.append({"id": len(things), "image_id": index, "category_id": kind + 1, "segmentation": [flat],
                           "bbox": [x, y, side, side], "area": side**2, "iscrowd": 0})  # fmt: skip
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image)
        cv2.imwrite(str(folder / "labels" / f"{index}.png"), label)
        images.append({"id": index, "file_name": f"{index}.png", "height": SIZE[0], "width": SIZE[1]})
        for text in (f"a {names[0]} square and a {names[1]} triangle", f"one square is {names[0]}"):
            captions.append({"id": len(captions), "image_id": index, "caption": text})
    kinds = [{"id": 1, "name": "square"}, {"id": 2, "name": "triangle"}]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": things, "categories": kinds}))
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))


def config(folder: Path, **changes: Any) -> Path:
    """Writes a config with one source, three tasks and two views; ``changes`` replace top-level keys."""
    joined = {
        "type": "joined",
        "images": "all",
        "readers": {
            "instances": {"type": "coco_instances", "images": "images", "annotations": "instances.json"},
            "semantic": {"type": "label_png", "images": "images", "labels": "labels"},
            "captions": {"type": "coco_captions", "images": "images", "annotations": "captions.json"},
        },
    }
    shown = {"input_size": list(SIZE), "letterbox": True}
    letterbox = {"type": "letterbox", "size": list(SIZE)}
    content: dict[str, Any] = {
        "data_root": str(folder),
        "save_dir": str(folder / "run"),
        "device": "cpu",
        "tasks": {
            "instances": {"type": "instances", "classes": {"names": "instances.json"}, **shown},
            "semantic": {"type": "segmentation", "classes": {"names": ["ground", "square", "triangle"]}, **shown},
            "captions": {"type": "captions", "classes": {"captions": ["captions.json"]}, "max_length": 12, **shown},
        },
        "model": {
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "backbone": {"type": "yolov7_af", "depth_multiplier": 0.33, "width_multiplier": 0.125},
            "heads": {
                "instances": {"type": "yolov7_af", "prototypes": 4},
                "semantic": {"type": "semantic"},
                "captions": {"type": "captions", "width": 16, "heads": 2, "layers": 2, "feed_forward": 32, "hidden": 16,
                             "max_length": 12, "beam_size": 3},
            },
        },
        "sources": {
            "scenes": {
                "dataset": joined,
                "batch_size": 2,
                "views": {
                    "strong": {"tasks": ["instances", "semantic"], "transforms": [{"type": "mosaic", "size": list(SIZE)},
                               letterbox, {"type": "copy_paste"}, {"type": "horizontal_flip"}]},
                    "weak": {"tasks": ["captions"], "transforms": [letterbox]},
                },
            }
        },
        "optimizer": {"learning_rate": 0.002, "warmup_steps": 1},
        "train": {"epochs": 2, "steps_per_epoch": 2, "log_every": 1, "eval_every": 2, "save_every": 2, "num_workers": 0,
                  "ema_decay": 0.9},
        "eval": {"datasets": {"val": {**joined, "tasks": ["instances", "semantic", "captions"]}}, "batch_size": 2},
    }  # fmt: skip
    path = folder / "scenes.yml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def write_model(folder: Path) -> None:
    """Writes ``folder``/random, weights of ``folder``/scenes.yml whose batch statistics are those of the images."""
    import paddle

    from ppmtl import build

    run = build.load(str(folder / "scenes.yml"))
    paddle.seed(0)
    tasks = build.build_tasks(run.settings)
    model = build.build_model(run.settings, tasks)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.0  # what is seen next replaces the statistics; fresh ones let the features vanish
    images = np.stack([cv2.imread(str(path)) for path in sorted((folder / "images").glob("*.png"))])
    model.train()
    model(paddle.to_tensor(images), tasks=["instances", "semantic"])
    write_weights(folder / "random", run, tasks, model, SPREAD)
