"""environment.json: what the cards are and how Paddle was built, where there are cards; null where there are none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import paddle
import pytest

from ppmtl.train import environment as module
from ppmtl.train.environment import environment

OF_CARDS = ("gpu_count", "gpu_names", "gpu_driver", "cuda", "cudnn", "cudnn_loaded")


@pytest.fixture
def cpu_build(monkeypatch):
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: False)
    for name in ("cuda", "cudnn"):
        monkeypatch.setattr(paddle.version, name, lambda: "False")


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(paddle.device.cuda, "get_device_name", lambda index: f"NVIDIA A100-SXM4-40GB no. {index}")
    monkeypatch.setattr(paddle.device, "get_cudnn_version", lambda: 9501)
    monkeypatch.setattr(paddle.version, "cuda", lambda: "12.6")
    monkeypatch.setattr(paddle.version, "cudnn", lambda: "9.5.1")
    monkeypatch.setattr(module.shutil, "which", lambda program: f"/usr/bin/{program}")

    def run(command, **_):
        answers = {"nvidia-smi": "560.35.03\n560.35.03\n", "git": "abc1234\n"}
        return SimpleNamespace(returncode=0, stdout=answers[command[0]])

    monkeypatch.setattr(module.subprocess, "run", run)


@pytest.mark.usefixtures("cpu_build")
def test_without_cuda_every_fact_about_cards_is_null():
    found = json.loads(json.dumps(environment()))
    assert {name: found[name] for name in OF_CARDS} == dict.fromkeys(OF_CARDS)
    assert found["paddle_build"].startswith(paddle.version.commit[:10])
    assert "cuda" not in found["paddle_build"]


@pytest.mark.usefixtures("two_cards")
def test_cards_driver_and_libraries_are_named():
    found = json.loads(json.dumps(environment()))
    assert {name: found[name] for name in OF_CARDS} == {
        "gpu_count": 2,
        "gpu_names": ["NVIDIA A100-SXM4-40GB no. 0", "NVIDIA A100-SXM4-40GB no. 1"],
        "gpu_driver": "560.35.03",
        "cuda": "12.6",
        "cudnn": "9.5.1",
        "cudnn_loaded": 9501,
    }
    assert "with cuda" in found["paddle_build"]
    assert found["git"] == "abc1234"


@pytest.mark.usefixtures("two_cards")
def test_a_driver_that_nobody_can_be_asked_for_is_null(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    assert environment()["gpu_driver"] is None
    assert environment()["git"] == "not a git checkout"


@pytest.mark.usefixtures("two_cards")
def test_a_cuda_build_on_a_machine_without_cards_still_says_its_versions(monkeypatch):
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    found = environment()
    assert (found["gpu_count"], found["gpu_names"], found["cuda"]) == (None, None, "12.6")
