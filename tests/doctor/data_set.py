"""A small data set in the folders that configs/allinone_custom.yml expects, and a subset of a real one in the same folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "allinone_custom.yml"
HEIGHT, WIDTH = 96, 128
COUNTS = {"train": 6, "val": 4}


def write_small(root: Path) -> Path:
    """Six training and four validation images per task: squares of two kinds on a textured ground, all labels correct."""
    for path in ("det/annotations", "cls", "seg"):
        (root / path).mkdir(parents=True)
    (root / "seg/classes.txt").write_text("road\nsquare\n")
    (root / "cls/classes_body.txt").write_text("van\ncoupe\n")
    for number, (split, count) in enumerate(COUNTS.items()):
        for folder in (f"seg/images/{split}", f"seg/labels/{split}", f"cls/{split}", f"det/{split}"):
            (root / folder).mkdir(parents=True)
        images, boxes, lines = [], [], []
        for index in range(count):
            name = f"{index}.jpg"
            pixels, (x, y, side) = _square(1000 * number + index)
            label = np.zeros((HEIGHT, WIDTH), np.uint8)
            label[y : y + side, x : x + side] = 1
            cv2.imwrite(str(root / f"seg/images/{split}/{name}"), pixels)
            cv2.imwrite(str(root / f"seg/labels/{split}/{index}.png"), label)
            cv2.imwrite(str(root / f"cls/{split}/{name}"), _square(1000 * number + 100 + index)[0])
            lines.append(f"{name} {index % 2}")
            pixels, (x, y, side) = _square(1000 * number + 200 + index)
            cv2.imwrite(str(root / f"det/{split}/{name}"), pixels)
            images.append({"id": index + 1, "file_name": name, "height": HEIGHT, "width": WIDTH})
            boxes.append({"id": index + 1, "image_id": index + 1, "category_id": 1 + index % 2, "iscrowd": 0,
                          "bbox": [x, y, side, side], "segmentation": []})  # fmt: skip
        (root / f"cls/{split}_body.txt").write_text("\n".join(lines))
        categories = [{"id": 1, "name": "stop"}, {"id": 2, "name": "yield"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (root / f"det/annotations/{split}.json").write_text(json.dumps(content))
    return root


def copy_some(source: Path, root: Path) -> Path:
    """Some images of each task and split of a real data set in the same folders, with their labels."""
    for file in ("seg/classes.txt", "cls/classes_body.txt"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, root / file)
    for split, count in {"train": 9, "val": 4}.items():
        for image in _spread(sorted((source / "seg/images" / split).iterdir()), count):
            _copy(source, root, f"seg/images/{split}/{image.name}", f"seg/labels/{split}/{image.stem}.png")
        lines = (source / f"cls/{split}_body.txt").read_text().splitlines()
        chosen = _spread(sorted(lines, key=lambda line: int(line.split()[-1])), 3 * count)
        _copy(source, root, *(f"cls/{split}/{line.rsplit(maxsplit=1)[0]}" for line in chosen))
        (root / f"cls/{split}_body.txt").write_text("\n".join(chosen))
        content = json.loads((source / f"det/annotations/{split}.json").read_text())
        content["images"] = _spread(content["images"], 2 * count)
        kept = {image["id"] for image in content["images"]}
        boxes = {(a["image_id"], *a["bbox"]): a for a in content["annotations"] if a["image_id"] in kept}
        content["annotations"] = list(boxes.values())  # the original has one box twice
        _copy(source, root, *(f"det/{split}/{image['file_name']}" for image in content["images"]))
        (root / "det/annotations").mkdir(exist_ok=True)
        (root / f"det/annotations/{split}.json").write_text(json.dumps(content))
    return root


def _square(seed: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(0, 160, (12, 16, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    side = 24 + 16 * (seed % 2)
    x, y = int(rng.integers(1, WIDTH - side)), int(rng.integers(1, HEIGHT - side))
    ground[y : y + side, x : x + side] = 230
    return ground, (x, y, side)


def _spread(items: list, count: int) -> list:
    return [items[int(i)] for i in np.unique(np.linspace(0, len(items) - 1, count).astype(int))]


def _copy(source: Path, root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, root / file)
