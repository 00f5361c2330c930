"""The engines' own traps. That they equal the training graph is shown for every format in test_graphs.py."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest

from ppmtl.bundle.engines.backend import EngineOptions, has_bf16, open_backend
from ppmtl.bundle.reading import read_bundle

TASKS = ("seg", "cls", "det")


def images(height: int = 64, width: int = 96, batch: int = 1, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def backend(exported):
    return open_backend(read_bundle(exported / "bundle"), cpu_threads=1)


def largest_difference(one, other) -> float:
    return max(float(np.abs(one[t][n] - other[t][n]).max()) for t in one for n in one[t])


def test_an_answer_stays_and_is_repeated_whatever_sizes_and_numbers_run_in_between(backend):
    first = backend(images(90, 45, 2), TASKS)
    before = copy.deepcopy(first)
    for shape in ((64, 96), (160, 128), (90, 45, 2), (64, 96)):
        backend(images(*shape, seed=1), TASKS)
    assert largest_difference(first, before) == 0
    assert largest_difference(backend(images(90, 45, 2), TASKS), before) == 0


def test_an_input_that_a_graph_refuses_is_an_error_with_its_shape(backend):
    with pytest.raises(ValueError, match=r"trunk\.pdmodel: Paddle Inference fails on images \[1, 64, 96, 4\]"):
        backend(np.zeros((1, 64, 96, 4), np.uint8), ("cls",))
    backend(images(), TASKS)  # and the backend lives on


def test_the_export_says_how_small_an_input_may_be(backend):
    with pytest.raises(ValueError, match="at least 32 px, got 31x64"):
        backend(images(31, 64), ("cls",))
    assert np.isfinite(backend(images(32, 32), ("cls",))["cls"]["probs"]).all()


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute bfloat16")
def test_bf16_is_near_float32_and_decodes_boxes_in_float32(exported, backend):
    low = open_backend(read_bundle(exported / "bundle"), cpu_threads=1, bf16=True)(images(), TASKS)
    full = backend(images(), TASKS)
    assert 0 < np.abs(low["seg"]["probs"] - full["seg"]["probs"]).mean() < 0.01
    # Cell centres lie on a grid of 8 px. In bfloat16 they would be rounded to 1/2 px from x = 64 on, all alike.
    fractions = np.unique(np.round(low["det"]["boxes"][..., 2] % 0.5, 4))
    assert len(fractions) > 50


def test_a_gpu_that_this_paddle_cannot_use_is_refused(exported):
    import paddle

    if paddle.device.is_compiled_with_cuda():
        pytest.skip("this Paddle is built for GPUs")
    with pytest.raises(ValueError, match="this Paddle is built for CPUs only"):
        open_backend(read_bundle(exported / "bundle"), device="GPU", run_mode="trt_fp16")


class Recorded:
    """Stands for paddle.inference: configurations write down what is called on them, predictors add one."""

    PrecisionType = SimpleNamespace(Half="half", Float32="float32")

    def __init__(self) -> None:
        self.configs: list[list[tuple]] = []

    def Config(self, *files: str):
        calls = [("Config", files)]
        self.configs.append(calls)

        class Config:
            def __getattr__(self, name):
                return lambda *args, **kwargs: calls.append((name, args or kwargs))

        return Config()

    def create_predictor(self, _config):
        kept = {}
        handle = SimpleNamespace(copy_from_cpu=lambda array: kept.update(x=array), copy_to_cpu=lambda: kept["x"] + 1)
        return SimpleNamespace(
            get_input_names=lambda: ["images"], get_output_names=lambda: ["out"],
            get_input_handle=lambda _: handle, get_output_handle=lambda _: handle, run=lambda: None,
        )  # fmt: skip


def test_tensorrt_first_records_the_shapes_and_then_builds_on_them(tmp_path, monkeypatch):
    """Written to the documentation: there is no GPU here, so this shows the order of calls and nothing more."""
    from ppmtl.bundle.engines import paddle_inference

    recorded = Recorded()
    monkeypatch.setattr(paddle_inference, "inference", recorded)
    options = EngineOptions(device="gpu:1", cpu_threads=1, run_mode="trt_fp16")
    graph = paddle_inference.open_graph((tmp_path / "trunk.pdmodel", tmp_path / "trunk.pdiparams"), options)
    assert recorded.configs == []  # sizes are not known before the first input
    for value in (1, 2):
        assert graph({"images": np.full(3, value)})[0].tolist() == [value + 1] * 3
    collecting, building = (dict(calls) for calls in recorded.configs)
    assert collecting["enable_use_gpu"][1] == building["enable_use_gpu"][1] == 1
    (shapes,) = collecting["collect_shape_range_info"]
    assert building["enable_tuned_tensorrt_dynamic_shape"] == (shapes, True)
    assert building["enable_tensorrt_engine"]["precision_mode"] == "half"
    assert "enable_tensorrt_engine" not in collecting
    assert "enable_mkldnn" not in building


def test_json_graphs_get_the_executor_that_memory_optimisation_needs(tmp_path, monkeypatch):
    from ppmtl.bundle.engines import paddle_inference

    recorded = Recorded()
    monkeypatch.setattr(paddle_inference, "inference", recorded)
    options = EngineOptions(cpu_threads=2, mkldnn=False)
    for suffix in (".json", ".pdmodel"):
        paddle_inference.open_graph((tmp_path / f"trunk{suffix}", tmp_path / "trunk.pdiparams"), options)
    new, old = (dict(calls) for calls in recorded.configs)
    assert new["enable_new_executor"] == (True,)
    assert "enable_new_executor" not in old
    assert old["set_cpu_math_library_num_threads"] == (2,)
    assert "disable_mkldnn" in old
    assert "enable_mkldnn" not in old
