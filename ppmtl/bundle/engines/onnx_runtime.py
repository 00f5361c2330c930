"""Graphs in ONNX Runtime, on CPU or CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from ppmtl.bundle.engines.backend import EngineOptions, Graph

NAME = "ONNX Runtime"
# Its exceptions have no parent of their own
ERRORS = (
    ValueError, RuntimeError, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.Fail,
    state.RuntimeException, state.NotImplemented,
)  # fmt: skip
_FATAL_ONLY = 4  # its other remarks are about its own optimiser, or come as an exception too


def check_options(options: EngineOptions) -> None:
    """Raises ValueError if ONNX Runtime as installed cannot do what is asked."""
    if options.bf16:
        raise ValueError("ONNX Runtime runs .onnx graphs in float32 here; leave bf16 out")
    if options.gpu is not None and "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ValueError("device GPU: this ONNX Runtime is built for CPUs only; install onnxruntime-gpu or use CPU")


def open_graph(files: tuple[Path, ...], options: EngineOptions) -> Graph:
    """The graph in ``files`` (one .onnx file), loaded."""
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = _FATAL_ONLY
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if options.gpu is not None:
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": options.gpu}))
    session = ort.InferenceSession(str(files[0]), session_options, providers=providers)
    return lambda inputs: [np.asarray(output) for output in session.run(None, dict(inputs))]
