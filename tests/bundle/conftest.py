"""A small model with all three heads and statistics as after a training, and bundles of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from ppmtl.bundle.settings import SourceRecord
from ppmtl.bundle.writing import Content, write_bundle
from ppmtl.config.settings import InferSettings
from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.heads.cbam_fc import CBAMFC
from ppmtl.models.heads.upernet import UPerNet
from ppmtl.models.heads.yolov5 import YOLOv5
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.models.necks.yolocsppan import YOLOCSPPAN
from ppmtl.structures import ClassList


@pytest.fixture(scope="session")
def model() -> MultiTaskModel:
    paddle.seed(0)
    backbone = ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 12, 16, 20), layer_scale_init=0.7, init="fan_in")
    specs = backbone.out_specs
    heads = {
        "seg": UPerNet(specs, 3, channels=8, aux_channels=6),
        "cls": CBAMFC(specs, 5, channels=16, dropout=0.5),
        "signs": YOLOv5(specs, 2, neck=partial(YOLOCSPPAN, depth_multiplier=0.33, channels=(8, 8, 8))),
    }
    built = MultiTaskModel(backbone, heads, answers={"signs": "det"})
    random = np.random.default_rng(0)
    for layer in built.sublayers():
        if isinstance(layer, nn.BatchNorm2D):  # fresh ones are the identity, which any folding would get right
            for tensor in (layer.weight, layer._variance):
                tensor.set_value(random.uniform(0.5, 2, tensor.shape).astype(np.float32))
            for tensor in (layer.bias, layer._mean):
                tensor.set_value(random.normal(0, 0.5, tensor.shape).astype(np.float32))
        elif getattr(layer, "bias", None) is not None:  # zeros too would be right whatever becomes of them
            layer.bias.set_value(random.normal(0, 0.2, layer.bias.shape).astype(np.float32))
    built.eval()
    return built


@pytest.fixture(scope="session")
def content() -> Content:
    names = {"seg": ("road", "sky", "car"), "cls": tuple("abcde"), "det": ("stop", "give way")}
    tasks = {
        "seg": {"type": "segmentation", "tta": {"scales": [1.0, 1.5]}},
        "cls": {"type": "classification", "long_side": 64},
        "det": {"type": "detection", "input_size": [96, 96], "tta": {"flip": False}},
    }
    classes = {task: ClassList(n, tuple(range(7, 7 + len(n)))) for task, n in names.items()}
    source = SourceRecord("configs/small.yml", "output/best", "0" * 64, 3)
    return Content("small", tasks, classes, InferSettings(size=(64, 96)), source, "abc")


@pytest.fixture(scope="session")
def paddle_bundle(model, content, tmp_path_factory) -> Path:
    """The default: .pdmodel, any size; read-only for tests."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_bundle(folder, model, content)
    return folder


@pytest.fixture(scope="session")
def onnx_bundle(model, content, tmp_path_factory) -> Path:
    """ONNX, any size, with a model.onnx of raw arrays; read-only for tests."""
    pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
    pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")
    folder = tmp_path_factory.mktemp("bundles") / "onnx"
    write_bundle(folder, model, content, graph_format="onnx", single_file="raw")
    return folder
