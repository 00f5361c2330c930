"""DINO as a graph: gathers, sorts and whole numbers, of which Paddle's exporters and oneDNN have much to get wrong."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from small_bundle import assert_equal, noise

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.settings import SourceRecord
from ppmtl.bundle.writing import Content, write_bundle
from ppmtl.config.settings import InferSettings
from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.backend import PaddleBackend
from ppmtl.models.heads.dino import DINO
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.structures import ClassList


@pytest.fixture(scope="module")
def dino() -> MultiTaskModel:
    paddle.seed(0)
    backbone = ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), layer_scale_init=0.7, init="fan_in")
    # A few queries only: where two proposals have nearly the same score, rounding swaps them, and two rows differ
    head = DINO(backbone.out_specs, 2, dim=32, queries=30, encoder_layers=1, decoder_layers=2, feedforward=16)
    random = np.random.default_rng(0)
    for parameter in head.parameters():  # what starts at 0 would be right whatever becomes of it
        if float(parameter.abs().max()) == 0:
            parameter.set_value(random.normal(0, 0.2, parameter.shape).astype(np.float32))
    built = MultiTaskModel(backbone, {"det": head})
    built.eval()
    return built


@pytest.mark.parametrize("graph_format", ["paddle", "paddle-json", "onnx"])
def test_every_format_equals_the_training_graph_at_any_size(dino, tmp_path, graph_format):
    if graph_format == "onnx":
        pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
    source = SourceRecord("configs/small.yml", "output/best", "0" * 64, 3)
    classes, task = ClassList(("stop", "give way")), {"type": "detection", "nms_iou": None}
    content = Content("small", {"det": task}, {"det": classes}, InferSettings(size=(64, 96)), source, "abc")
    write_bundle(tmp_path / "b", dino, content, graph_format=graph_format)
    for mkldnn in (True, False):
        backend = open_backend(read_bundle(tmp_path / "b"), mkldnn=mkldnn, cpu_threads=1)
        for shape in ((64, 96), (90, 45, 2), (32, 32)):  # 32 x 32 has 22 cells for 30 queries
            assert_equal(backend(noise(*shape), ("det",)), PaddleBackend(dino)(noise(*shape), ("det",)))
