"""Bundles in 8 bit: which layers, on which numbers, and that they run."""

from __future__ import annotations

import numpy as np
import pytest
from small_bundle import TASKS, noise

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.verify import Images, calibration_views
from ppmtl.structures import Sample

pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")
onnx = pytest.importorskip("onnx", reason="requirements-deploy.txt is not installed")
pytest.importorskip("ml_dtypes", reason="requirements-deploy.txt is not installed")
from onnx import parser  # noqa: E402

from ppmtl.bundle.quantise import last_layers, layers_of, quantise  # noqa: E402


def test_the_last_layers_are_those_whose_output_reaches_no_other():
    graph = parser.parse_graph("""
        g (float[1,4] x) => (float[1,4] y, float[1,4] z)
        <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
            a = MatMul (x, w)
            b = Relu (a)
            c = MatMul (b, w)
            d = MatMul (c, x)
            y = Relu (d)
            e = MatMul (b, w)
            z = Relu (e)
        }""")
    for index, name in ((0, "first"), (2, "second"), (3, "dynamic"), (5, "third")):
        graph.node[index].name = name
    assert layers_of(graph) == ["first", "second", "third"]
    assert last_layers(graph) == {"second", "third"}


def images_of(*sizes) -> Images:
    reader = [Sample(f"{i}.jpg", noise(*size)[0], {}) for i, size in enumerate(sizes)]
    return Images("here", 1, reader)


def test_calibration_sees_images_from_all_over_the_set_as_every_task_is_shown_them(paddle_bundle):
    bundle = read_bundle(paddle_bundle)
    images = {name: images_of((40, 64), (48, 64), (56, 64), (64, 64), (64, 32)) for name in TASKS}
    views = [(view.shape, task) for view, task in calibration_views(bundle, images, 3)]
    assert views == [
        *(((1, *size, 3), "seg") for size in ((40, 64), (56, 64), (64, 32))),
        *(((1, *size, 3), "cls") for size in ((40, 64), (56, 64), (64, 32))),
        *[((1, 96, 96, 3), "det")] * 3,
    ]


def test_a_bundle_in_8_bit_runs_and_says_so_and_only_its_last_layers_are_in_float32(onnx_bundle, tmp_path):
    before = {path.name: path.read_bytes() for path in onnx_bundle.iterdir()}
    asked = []

    def views():
        asked.append(1)
        return [(noise(64, 96), name) for name in TASKS]

    settings = quantise(read_bundle(onnx_bundle), tmp_path / "int8", views)
    assert settings.precision == "int8"
    assert "onnxruntime" in settings.versions
    assert len(asked) == 5  # once per graph: nothing is kept
    assert {path.name: path.read_bytes() for path in onnx_bundle.iterdir()} == before
    assert sorted(path.name for path in (tmp_path / "int8").iterdir()) == sorted(before)
    floats, found = (open_backend(read_bundle(folder), cpu_threads=1) for folder in (onnx_bundle, tmp_path / "int8"))
    for task, arrays in found(noise(64, 96), TASKS).items():
        for name, array in arrays.items():
            wanted = floats(noise(64, 96), TASKS)[task][name]
            assert array.shape == wanted.shape
            assert 0 < np.abs(array - wanted).max() < 0.5 * np.abs(wanted).max(), (task, name)
    for name, last in (("trunk", 0), ("head_seg", 1), ("head_cls", 1), ("head_det", 3), ("model", 5)):
        graph = onnx.load(tmp_path / "int8" / f"{name}.onnx").graph
        makers = {output: node.op_type for node in graph.node for output in node.output}
        weights = {makers.get(n.input[1]) for n in graph.node if n.op_type in ("Conv", "MatMul", "Gemm") and n.name}
        assert "DequantizeLinear" in weights, name
        assert len([n for n in graph.node if n.name in last_layers(graph)]) == last, name
