"""The backend around an engine, with graphs made by hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from folders import write_folder

from ppmtl.bundle.engines import backend as backends
from ppmtl.bundle.engines.backend import BundleBackend, EngineOptions, has_bf16, open_backend, usable_cores
from ppmtl.bundle.reading import read_bundle
from ppmtl.predict.pipeline import Pipeline

IMAGES = np.arange(3 * 64 * 96 * 3, dtype=np.uint8).reshape(3, 64, 96, 3)


class Engine:
    """Opens graphs that answer with the shapes of the contract, and writes down what is opened and run."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.runs: list[tuple[str, dict[str, tuple[int, ...]]]] = []
        self.busy = 0
        self.most_at_once = 0

    def __call__(self, files: tuple[Path, ...]):
        stem = files[0].stem
        self.opened.append(stem)

        def run(inputs):
            self.runs.append((stem, {name: array.shape for name, array in inputs.items()}))
            self.busy += 1
            self.most_at_once = max(self.most_at_once, self.busy)
            time.sleep(0.002)
            self.busy -= 1
            images = next(iter(inputs.values()))
            mean = images.reshape(len(images), -1).mean(axis=1).astype(np.float32)
            if stem == "trunk":
                return [
                    np.tile(mean[:, None, None, None], (1, 2, 4, 6)),
                    np.tile(mean[:, None, None, None], (1, 3, 2, 3)),
                ]
            if stem == "head_det":
                return [np.zeros((len(images), 5, 4), np.float32), np.tile(mean[:, None, None], (1, 5, 2))]
            return [np.tile(mean.reshape(-1, *[1] * (3 if stem == "head_seg" else 1)), (1, 2))]

        return run

    def counts(self) -> dict[str, int]:
        return {stem: sum(name == stem for name, _ in self.runs) for stem in self.opened}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "small")


def test_the_backbone_runs_once_and_only_the_heads_asked_for_are_loaded_and_run(folder: Path) -> None:
    engine = Engine()
    backend = BundleBackend(read_bundle(folder), engine)
    assert engine.opened == []
    raw = backend(IMAGES, ("det", "cls"))
    assert engine.counts() == {"trunk": 1, "head_det": 1, "head_cls": 1}
    assert {task: list(arrays) for task, arrays in raw.items()} == {"det": ["boxes", "scores"], "cls": ["probs"]}
    backend(IMAGES, ("det",))
    assert engine.counts() == {"trunk": 2, "head_det": 2, "head_cls": 1}  # loaded once each


def test_a_head_gets_the_features_it_reads_and_the_size_of_the_input(folder: Path) -> None:
    engine = Engine()
    BundleBackend(read_bundle(folder), engine)(IMAGES, ("seg", "cls"))
    assert engine.runs == [
        ("trunk", {"images": (3, 64, 96, 3)}),
        ("head_seg", {"feature_0": (3, 2, 4, 6), "feature_1": (3, 3, 2, 3), "image_size": (2,)}),
        ("head_cls", {"feature_1": (3, 3, 2, 3)}),
    ]


def test_three_heads_on_one_image_cost_the_pipeline_one_backbone(folder: Path) -> None:
    engine, bundle = Engine(), read_bundle(folder)
    Pipeline(bundle.tasks, BundleBackend(bundle, engine), shared_size=bundle.shared_size).predict([IMAGES[0]], ["x"])
    assert engine.counts()["trunk"] == 1


@pytest.mark.parametrize(
    ("fixed", "chosen", "message"),
    [
        ({}, ["seg"], r"was opened for seg; cannot run \['cls'\]"),
        ({"size": [64, 64]}, None, r"exported for inputs of 64x64 \(H x W\) only, got 64x96"),
        ({"min_side": 65}, None, r"sides of at least 65 px, got 64x96 \(H x W\)"),
    ],
)
def test_what_the_bundle_cannot_answer_is_refused_before_a_graph_is_loaded(tmp_path, fixed, chosen, message) -> None:
    bundle, engine = read_bundle(write_folder(tmp_path / "small", input=fixed), chosen), Engine()
    with pytest.raises(ValueError, match=message):
        BundleBackend(bundle, engine)(IMAGES, ("cls",))
    assert engine.opened == []


def test_a_fixed_batch_is_filled_up_and_the_filling_is_not_answered(tmp_path: Path) -> None:
    fixed = read_bundle(write_folder(tmp_path / "fixed", input={"size": None, "batch": 2}))
    engine = Engine()
    raw = BundleBackend(fixed, engine)(IMAGES, ("cls", "det"))
    assert [shapes["images"][0] for stem, shapes in engine.runs if stem == "trunk"] == [2, 2]
    wanted = BundleBackend(read_bundle(write_folder(tmp_path / "free")), Engine())(IMAGES, ("cls", "det"))
    for task, arrays in wanted.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(raw[task][name], array)


def test_calls_from_several_threads_wait_for_one_another(folder: Path) -> None:
    engine = Engine()
    backend = BundleBackend(read_bundle(folder), engine)
    threads = [threading.Thread(target=backend, args=(IMAGES, ("cls",))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.most_at_once == 1
    assert engine.counts() == {"trunk": 6, "head_cls": 6}


@pytest.mark.parametrize("text, number", [("cpu", None), ("CPU", None), ("GPU", 0), ("gpu:1", 1)])
def test_devices_are_written_as_paddles_users_do(text: str, number: int | None) -> None:
    assert EngineOptions(device=text).gpu == number


def test_threads_follow_omp_num_threads_where_it_is_set(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cores() == 3
    for unset in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unset)
        assert usable_cores() >= 1


@pytest.mark.parametrize(
    "flags, able", [("fpu sse avx512f avx512_bf16 amx_tile", True), ("fpu amx_bf16", True), ("avx512f", False)]
)
def test_bf16_is_read_from_the_cpus_flags(tmp_path: Path, flags: str, able: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : avx512_bf16 in name only\nflags\t\t: {flags}\n")
    assert has_bf16(cpuinfo) is able
    assert has_bf16(tmp_path / "none") is False


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bf16": True}, "neither avx512_bf16 nor amx_bf16"),
        ({"bf16": True, "mkldnn": False}, "switch mkldnn on"),
        ({"bf16": True, "device": "gpu"}, "bf16 is for CPUs"),
        ({"run_mode": "trt_fp16"}, "TensorRT needs a GPU"),
        ({"engine": "onnxruntime"}, "onnxruntime cannot run paddle graphs, paddle can"),
        ({"cpu_threads": -1}, "at least 1"),
        *(({"device": text}, "allowed: cpu, gpu, gpu:1") for text in ("xpu", "gpu:", "gpu:x", "cpu:1", "")),
    ],
)
def test_what_cannot_work_is_refused_before_an_engine_is_imported(folder, monkeypatch, options, message) -> None:
    bundle = read_bundle(folder)
    monkeypatch.setattr(backends, "has_bf16", lambda: False)
    monkeypatch.setattr(backends.importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(ValueError, match=message):
        open_backend(bundle, **options)


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path, monkeypatch) -> None:
    def missing(_name: str):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    bundle = read_bundle(write_folder(tmp_path / "small", graph_format="onnx"))
    monkeypatch.setattr(backends.importlib, "import_module", missing)
    with pytest.raises(ValueError, match="needs onnxruntime, which is not installed: pip install onnxruntime"):
        open_backend(bundle)
