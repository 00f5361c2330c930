"""The weights that come with the project: what they are, how they are made, that they predict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_model import write_model

from ppmtl.data.images import read_image
from ppmtl.predict.evaluate import Evaluation
from ppmtl.studies import demo_weights
from ppmtl.tasks.base import Metrics
from ppmtl.train import checkpoint
from ppmtl.train.checkpoint_folder import problems, write
from ppmtl.weights.location import demo_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def test_the_projects_own_weights_are_small_intact_and_say_how_they_were_made():
    folder = demo_checkpoint()
    assert problems(folder) == []
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= demo_weights.MOST_BYTES
    assert {array.dtype for array in checkpoint.read_tensors(folder).values()} == {np.dtype(np.float16)}
    state = checkpoint.read_state(folder)
    assert state["seed"] == state["config"]["seed"]
    assert state["commit"]
    assert "make demo-weights" in state["how"]
    assert {"seg.miou", "cls.top1", "det.ap50"} <= set(state["metrics"]["float16"])
    assert "validation set" in state["metrics"]["images"]


def test_its_images_are_predicted_without_data_or_a_config(tmp_path):
    images = sorted((demo_checkpoint() / "images").iterdir())
    assert len(images) >= 2
    command = [sys.executable, str(ROOT / "tools/infer.py"), "--demo", "--device", "cpu", "--output_dir", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for image in images:
        document = json.loads((tmp_path / "out" / f"{image.stem}.json").read_text())
        assert {"seg", "cls", "det"} <= set(document)
        assert tuple(document["size"]) == read_image(image).shape[:2]


@pytest.fixture
def source(tmp_path):
    """A run whose best model measured 0.5."""
    write_model(tmp_path)
    state = json.loads((tmp_path / "random" / "state.json").read_text())
    state["progress"] = {"step": 7, "best_step": 7, "history": [{"step": 7, "score": 0.5, "seg.miou": 0.5}]}
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "best_model", {"model": checkpoint.read_tensors(tmp_path / "random")}, state)
    for folder in demo_weights.IMAGES.values():
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "1.jpg").write_bytes(b"image")
    return tmp_path


def make(folder, monkeypatch, measured, limit=None):
    result = Evaluation({"seg": Metrics("miou", {"miou": measured}, {})}, {"seg": 0.0}, {})
    monkeypatch.setattr(demo_weights, "_measured", lambda *_: result)
    return demo_weights.make(folder / "run", folder / "out", folder / "data", limit=limit)


def test_a_checkpoint_becomes_half_as_large_and_measured(source, monkeypatch):
    record = make(source, monkeypatch, 0.4996)
    arrays, halves = (checkpoint.read_tensors(source / name) for name in ("run", "out"))
    assert {name: array.astype(np.float16).tobytes() for name, array in arrays.items()} == {
        name: half.tobytes() for name, half in halves.items()
    }
    assert problems(source / "out") == []
    assert checkpoint.read_state(source / "out")["metrics"] == record["metrics"]
    assert record["metrics"]["float16"] == {"seg.miou": 0.4996, "score": 0.4996}
    assert record["metrics"]["float32_on_all_images"] == {"seg.miou": 0.5, "score": 0.5}
    assert record["metrics"]["images"].startswith("all")
    images = sorted(path.name for path in (source / "out" / "images").iterdir())
    assert images == ["signs_1.jpg", "street_1.jpg", "vehicle_1.jpg"]


def test_weights_that_rounding_makes_worse_do_not_replace_good_ones(source, monkeypatch):
    make(source, monkeypatch, 0.5)
    before = (source / "out" / "state.json").read_bytes()
    with pytest.raises(ValueError, match=r"worse: seg\.miou 0\.4900 instead of 0\.5000"):
        make(source, monkeypatch, 0.49)
    assert (source / "out" / "state.json").read_bytes() == before
    assert not list(source.glob(".out*"))
    assert make(source, monkeypatch, 0.49, limit=2)["metrics"]["images"] == "only the first 2 of each validation set"
