"""A backbone, a head, a task type with its label, a reader and a transform from a folder of the user's: no file is edited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from small_streets import config, write_streets

ROOT = Path(__file__).resolve().parents[1]

PARTS = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppmtl.data.reader import Reader
from ppmtl.models.base import Backbone, Head
from ppmtl.structures import FeatureSpec, Label
from ppmtl.tasks.base import Metrics, Task


@dataclass(frozen=True)
class Point(Label):
    xy: np.ndarray

    def moved(self, a, size, min_visible):
        return Point((a[:, :2] @ self.xy + a[:, 2]).astype(np.float32))


@dataclass(eq=False, kw_only=True)
class Pointing(Task[np.ndarray]):
    """Where is the middle of the square? Measured by the share of images that it is found in within ``radius`` pixels."""

    task_type: ClassVar[str] = "pointing"
    label_type: ClassVar[Any] = Point
    json_type: ClassVar[Any] = dict[str, list[float]]
    tolerances: ClassVar[Any] = {"xy": 1e-4}
    radius: float = 8.0

    def collate(self, samples):
        sizes = np.array([sample.size[::-1] for sample in samples], np.float32)
        return {"xy": np.stack([self.label(sample, Point).xy for sample in samples]) / sizes}

    def example(self, size):
        return Point(np.array([size[1] / 2, size[0] / 4], np.float32))

    def raw_shapes(self, batch, size):
        return {"xy": (batch, 2)}

    def perfect_raw(self, label, size):
        return {"xy": (label.xy / np.array(size[::-1], np.float32))[None]}

    def decode(self, raw, index, meta, *, single):
        xy = raw["xy"][index] * np.array(meta.input_size[::-1])
        return meta.to_original[:, :2] @ xy + meta.to_original[:, 2]

    def truth(self, label):
        return label.xy

    def new_merge(self):
        return _Mean()

    def new_meter(self):
        return _Hits(self)

    def to_json(self, prediction, *, threshold=0.0):
        return {"xy": [round(float(v), 2) for v in prediction]}

    def draw(self, canvas, prediction, threshold):
        x, y = (int(v) for v in np.clip(prediction, 0, np.array(canvas.shape[1::-1]) - 1))
        canvas[y, x] = 255, 0, 0
        return canvas


class _Mean:
    def __init__(self):
        self.found = []

    def add(self, prediction):
        self.found.append(prediction)

    def result(self):
        return self.found[0] if len(self.found) == 1 else np.mean(self.found, axis=0)


class _Hits:
    def __init__(self, task):
        self.task, self.distances = task, []

    def add(self, sample, prediction):
        self.distances.append(float(np.linalg.norm(self.task.label(sample, Point).xy - prediction)))

    def state(self):
        return self.distances

    def merge(self, states, order):
        every = [distance for state in states for distance in state]
        self.distances = [every[i] for i in order]

    def result(self):
        return Metrics("hits", {"hits": float(np.mean(np.array(self.distances) < self.task.radius))})


class Middles(Reader):
    """Images of a folder whose bright square has its middle in a list."""

    def __init__(self, root, tasks, *, images: str, middles: str) -> None:
        super().__init__(root, tasks)
        self._folder = self.root / images
        self._rows = [line.split() for line in (self.root / middles).read_text().splitlines()]

    @staticmethod
    def required_paths(root, tasks, **settings):
        return [Path(root) / settings["images"], Path(root) / settings["middles"]]

    def __len__(self):
        return len(self._rows)

    def path(self, index):
        return str(self._folder / self._rows[index][0])

    def labels(self, index, image):
        task, _ = self.only_task()
        return {task: Point(np.array(self._rows[index][1:], np.float32))}

    def describe(self):
        return f"{len(self)} middles"


class Darken:
    def __init__(self, *, factor: float = 0.5) -> None:
        self.factor = factor

    def __call__(self, canvas, rng):
        canvas.image = (canvas.image * (1 - self.factor * rng.random())).astype(np.uint8)


class TwoStrides(Backbone):
    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2D(3, width, 4, stride=4), nn.Conv2D(width, 2 * width, 2, stride=2)
        self.out_specs = {"fine": FeatureSpec(width, 4), "coarse": FeatureSpec(2 * width, 8)}

    def forward(self, x):
        fine = F.relu(self.fine(x))
        return {"fine": fine, "coarse": F.relu(self.coarse(fine))}


class PointHead(Head):
    task_type = "pointing"

    def __init__(self, in_specs, num_classes: int, *, reads: str = "coarse") -> None:
        super().__init__()
        self.reads = self.choose(in_specs, (reads,), default=())
        self.fc = nn.Linear(in_specs[reads].channels, 2)

    def forward(self, features, image_size, targets=None):
        xy = F.sigmoid(self.fc(features[self.reads[0]].mean([2, 3])))
        if targets is None:
            return {"xy": xy}
        return {"loss_l1": (xy - targets["xy"]).abs().mean()}
'''


def test_five_parts_of_ones_own_train_and_evaluate_by_dotted_path(tmp_path: Path) -> None:
    write_streets(tmp_path)
    (tmp_path / "my_parts.py").write_text(PARTS)
    boxes = json.loads((tmp_path / "boxes.json").read_text())["annotations"]
    rows = [f"{b['image_id']}.png {b['bbox'][0] + b['bbox'][2] / 2} {b['bbox'][1] + b['bbox'][3] / 2}" for b in boxes]
    (tmp_path / "middles.txt").write_text("\n".join(rows))
    path = config(tmp_path)
    content = yaml.safe_load(path.read_text())
    middles = {"type": "my_parts.Middles", "images": "images", "middles": "middles.txt"}
    transforms = [{"type": "horizontal_flip"}, {"type": "my_parts.Darken", "factor": 0.25}]
    content["tasks"] = {"point": {"type": "my_parts.Pointing", "radius": 12.5, "classes": {"count": 1}}}
    heads = {"point": {"type": "my_parts.PointHead", "reads": "fine"}}
    content["model"] = {"backbone": {"type": "my_parts.TwoStrides"}, "heads": heads}
    content["sources"] = {"point": {"dataset": middles, "batch_size": 2, "transforms": transforms}}
    content["eval"] = {"datasets": {"point": middles}}
    content["train"] |= {"epochs": 1, "ema_decay": None}
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, str(ROOT / "tools/train.py"), "-c", str(path), "--eval"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "point.loss_l1:" in done.stdout
    assert "point hits" in done.stdout
    assert (tmp_path / "run/best_model/model.safetensors").is_file()
