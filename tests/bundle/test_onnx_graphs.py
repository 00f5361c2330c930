"""ONNX bundles, and what happens when the converter cannot."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn
from paddle.static import InputSpec
from small_bundle import TASKS, assert_equal, noise

from ppmtl.bundle import onnx_graphs
from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.writing import write_bundle
from ppmtl.models.backend import PaddleBackend

pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")


def test_an_onnx_bundle_equals_the_training_graph_at_any_size_and_batch(model, content, tmp_path):
    write_bundle(tmp_path / "b", model, content, graph_format="onnx")
    assert sorted(path.suffix for path in (tmp_path / "b").iterdir()) == [".onnx"] * 4 + [".yml"]
    backend = open_backend(read_bundle(tmp_path / "b"), cpu_threads=1)
    for shape in ((64, 96), (90, 45, 2), (130, 200)):
        assert_equal(backend(noise(*shape), TASKS), PaddleBackend(model)(noise(*shape), TASKS))
    with pytest.raises(ValueError, match=r"trunk\.onnx: ONNX Runtime fails on images \[1, 64, 96, 4\]"):
        backend(np.zeros((1, 64, 96, 4), np.uint8), ("cls",))


def test_a_graph_that_an_engine_cannot_load_is_named(model, content, tmp_path):
    write_bundle(tmp_path / "b", model, content, graph_format="onnx")
    bundle = read_bundle(tmp_path / "b")  # the digests are right; what follows is what an engine that is too old sees
    (tmp_path / "b" / "trunk.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"trunk\.onnx: ONNX Runtime cannot load it; export it again: "):
        open_backend(bundle, cpu_threads=1)(noise(64, 96), TASKS)


class _Bins(nn.Layer):
    def forward(self, x):
        return F.adaptive_avg_pool2d(x, 2)


class _Double(nn.Layer):
    def forward(self, x):
        return x * 2.0


def test_a_converter_that_aborts_is_reported_and_does_not_take_the_other_graphs_along(tmp_path):
    for name, layer in (("head_bins", _Bins()), ("head_double", _Double())):
        paddle.jit.save(layer, str(tmp_path / name), input_spec=[InputSpec([None, 3, None, None], "float32", "x")])
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the message is looked at below)
        onnx_graphs.convert(["head_bins", "head_double"], tmp_path, tmp_path)
    for text in (
        "the converter failed on head_bins\n",
        "Adaptive only support static input shape",
        "add --input_shape HEIGHT WIDTH",
        "Converted: head_double",
    ):
        assert text in str(error.value)
    assert (tmp_path / "head_double.onnx").is_file()


def test_a_missing_converter_is_named_with_its_remedy(model, content, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graphs.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"--format onnx needs paddle2onnx: pip install -r requirements-deploy\.txt"):
        write_bundle(tmp_path / "b", model, content, graph_format="onnx")
    assert not (tmp_path / "b").exists()
