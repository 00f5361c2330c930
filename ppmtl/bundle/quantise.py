"""An ONNX bundle in 8 bit for CPUs: ONNX Runtime's static quantisation, calibrated on the user's images.

Convolutions and linears are quantised, weights per channel (int8), what goes into them per tensor (uint8, smallest and
largest value seen); all between them stays in float32. So does the last such layer of every head: its output is decoded into
scores and pixels, where a step of one 256th shows. Measured with the demo model on its validation sets: AP50 0.6064 in
float32, 0.5770 with everything in 8 bit, 0.6085 with the last layers in float32; mIoU and Top-1 within 0.007 either way.
Heads that answer word by word stay in float32.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import yaml

from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import Bundle
from ppmtl.bundle.settings import IMAGES, SETTINGS_FILE, SINGLE_FILE, BundleSettings, file_records, write_settings

Inputs = dict[str, np.ndarray]
Views = Callable[[], Iterable[tuple[np.ndarray, str]]]
"""Network inputs (1, H, W, 3) uint8 RGB and the task that wants each; asked once per graph, so that none are kept."""


def require_quantiser() -> None:
    """Raises ValueError if a package is missing."""
    missing = [name for name in ("onnx", "onnxruntime", "ml_dtypes") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"--int8 needs {', '.join(missing)}: pip install -r requirements-deploy.txt (or leave it out)")


def quantise(bundle: Bundle, folder: Path, views: Views) -> BundleSettings:
    """Writes ``folder``, a copy of an ONNX bundle with 8-bit graphs, and returns its settings; model.onnx is taken along."""
    settings, backend = bundle.settings, open_backend(bundle)
    shutil.copytree(bundle.folder, folder)

    def of_backbone() -> Iterator[Inputs]:
        return (backend.images(view, task) for view, task in views())

    def of_head(name: str) -> Iterator[Inputs]:
        for view, task in views():
            if task == name:
                features = backend.features(view, task)
                yield {key: features[key] for key in settings.heads[name].inputs}

    def of_all() -> Iterator[Inputs]:
        return ({IMAGES: view} for view, _ in views())

    trunk = settings.graph_files(settings.trunk.file)[0]
    _quantise(bundle.folder / trunk, folder / trunk, of_backbone(), last=True)
    for name, head in settings.heads.items():
        if head.steps is None:
            (file,) = settings.graph_files(head.file)
            _quantise(bundle.folder / file, folder / file, of_head(name), last=False)
    if (bundle.folder / SINGLE_FILE).is_file():
        _quantise(bundle.folder / SINGLE_FILE, folder / SINGLE_FILE, of_all(), last=False)
    document = yaml.safe_load((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    document["versions"]["onnxruntime"] = version("onnxruntime")
    changed = {"precision": "int8", "files": file_records(folder / record.name for record in settings.files)}
    return write_settings(folder, json.loads(json.dumps(document | changed)))


def _quantise(source: Path, target: Path, inputs: Iterator[Inputs], *, last: bool) -> None:
    """Writes the graph in 8 bit; ``last``: also the layers after which no other comes."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Inputs | None:
            return next(inputs, None)

    # ONNX Runtime's basic optimiser brings weights into the form that the quantiser knows
    between = target.with_suffix(".float.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(between)
    options.log_severity_level = 4
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(between).graph
    layers = layers_of(graph)
    if not last:
        layers = [name for name in layers if name not in last_layers(graph)]
    logging.disable(logging.WARNING)  # it recommends the optimiser of just now
    if layers:  # without a list the quantiser would take all of them
        quantization.quantize_static(
            between,
            target,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=layers,
        )
    logging.disable(logging.NOTSET)
    between.unlink()


def layers_of(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes that multiply by stored weights."""
    stored = {value.name for value in graph.initializer}
    return [n.name for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in stored]


def last_layers(graph: onnx.GraphProto) -> set[str]:
    """Those of :func:`layers_of` whose output reaches no other of them."""
    layers, found = set(layers_of(graph)), set()
    reaching: set[str] = set()  # tensors from which a layer is reached
    for node in reversed(graph.node):  # sorted: who reads comes later
        reaches = bool(reaching.intersection(node.output))
        if node.name in layers and not reaches:
            found.add(node.name)
        if reaches or node.name in layers:
            reaching.update(node.input)
    return found
