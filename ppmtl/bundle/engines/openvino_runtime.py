"""Graphs in OpenVINO, on CPU. Of .pdmodel files it knows too few operators (no "reciprocal", no "bitwise_and"): .onnx only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from ppmtl.bundle.engines.backend import EngineOptions, Graph

NAME = "OpenVINO"
ERRORS = (ValueError, RuntimeError)


def check_options(options: EngineOptions) -> None:
    """Raises ValueError if it is not used for what is asked."""
    if options.gpu is not None:
        raise ValueError("OpenVINO is used on CPUs here; leave --device GPU out")


def open_graph(files: tuple[Path, ...], options: EngineOptions) -> Graph:
    """The graph in ``files``, compiled."""
    settings: dict[str, str | int] = {
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Set explicitly: OpenVINO's default is bfloat16 on CPUs that have it
        "INFERENCE_PRECISION_HINT": "bf16" if options.bf16 else "f32",
    }
    model = ov.Core().compile_model(str(files[0]), "CPU", settings)

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = model(dict(inputs), share_inputs=True)
        return [outputs[index] for index in range(len(model.outputs))]

    return run
