"""tools/train.py fills the backbone on a fresh start only."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ppmtl.models.backbones.convnext import ConvNeXt

ROOT = Path(__file__).resolve().parents[2]
ARCH = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
CONFIG = {
    "_base_": str(ROOT / "configs" / "allinone_traffic.yml"),
    "data_root": "data",
    "tasks": {"cls": {"classes": {"count": 4}}},
    "model": {
        "backbone": {**ARCH, "output_norm": False, "pretrained": "backbone.safetensors"},
        "heads": {"cls": {"channels": 16}},
    },
    "sources": {"cls": {"batch_size": 4, "transforms": [{"type": "resize", "size": [32, 32]}]}},
    "train": {"epochs": 1, "steps_per_epoch": 1, "save_every": 1, "num_workers": 0, "ema_decay": None},
}
DATA = ["--size", "64", "96", "--det_size", "96", "96", "--cls_size", "32", "32", "--workers", "1",
        "--sign_classes", "3", "--vehicle_classes", "4", "--seg_images", "1", "1", "1", "--det_images", "1", "1", "1",
        "--cls_images", "8", "4", "4"]  # fmt: skip


def run(folder, name, *arguments):
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    made = run(folder, "make_demo_data", "--out", "data", *DATA)
    assert made.returncode == 0, made.stderr
    (folder / "run.yml").write_text(json.dumps(CONFIG))
    rng = np.random.default_rng(0)
    shapes = {n: v.shape for n, v in ConvNeXt(**ARCH, output_norm=False).state_dict().items()}
    save_file({n: rng.normal(0, 0.1, s).astype("float32") for n, s in shapes.items()}, folder / "backbone.safetensors")
    return folder


TRAIN = ("train", "-c", "run.yml", "--tasks", "cls", "-o", "save_dir=out")


def test_a_fresh_start_loads_the_backbone_and_resuming_does_not_need_the_file(work):
    fresh = run(work, *TRAIN)
    assert fresh.returncode == 0, fresh.stderr
    assert "pretrained backbone: backbone.safetensors (sha256 " in fresh.stdout
    assert "matched 52, missing 0, unexpected 0" in fresh.stdout
    # the warm-up's first step has a learning rate of 0, so what is saved is what was loaded
    saved = load_file(work / "out" / "latest" / "model.safetensors")
    for name, array in load_file(work / "backbone.safetensors").items():
        assert np.array_equal(saved[f"backbone.{name}"], array), name

    (work / "backbone.safetensors").rename(work / "moved.safetensors")
    resumed = run(work, *TRAIN, "train.epochs=2", "-r")
    assert resumed.returncode == 0, resumed.stderr
    assert "pretrained" not in resumed.stdout.replace("model.backbone.pretrained", "")
    started = run(work, *TRAIN, "save_dir=other", "weights=out/latest")
    assert started.returncode == 0, started.stderr

    missing = run(work, *TRAIN, "save_dir=third")
    assert missing.returncode == 1
    assert "backbone.safetensors does not exist" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_file_that_does_not_fit_stops_the_run(work):
    save_file({"downsample_layers.0.0.weight": np.ones((8, 3, 4, 4), "float32")}, work / "stub.safetensors")
    result = run(work, *TRAIN, "save_dir=fourth", "model.backbone.pretrained=stub.safetensors")
    assert result.returncode == 1
    assert "51 missing" in result.stderr
    assert not (work / "fourth" / "latest").exists()
