"""Graphs in OpenVINO, on CPU. Of .pdmodel files it knows too few operators (no "reciprocal", no "bitwise_and"): .onnx only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from ppmtl.bundle.engines.backend import EngineOptions, Graph, shapes_of


def check_options(options: EngineOptions, graph_format: str) -> None:  # noqa: ARG001
    """Raises ValueError if OpenVINO cannot do what is asked."""
    if options.run_mode != "paddle" or options.gpu is not None:
        raise ValueError("OpenVINO is used on CPUs here; leave run_mode and --device GPU out")


def open_graph(files: tuple[Path, ...], options: EngineOptions) -> Graph:
    """Returns the graph in ``files``, compiled."""
    settings: dict[str, str | int] = {
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Said outright: left alone, OpenVINO computes in bfloat16 on CPUs that have it.
        "INFERENCE_PRECISION_HINT": "bf16" if options.bf16 else "f32",
    }
    return _Graph(files[0], settings)


class _Graph:
    def __init__(self, file: Path, settings: dict[str, str | int]) -> None:
        self._name = file.name
        try:
            self._model = ov.Core().compile_model(str(file), "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"{file}: OpenVINO cannot load this graph ({reason}); export with --format onnx"
            ) from error

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            outputs = self._model(dict(inputs), share_inputs=True)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self._name}: OpenVINO fails on {shapes_of(inputs)}: {error}") from error
        return [outputs[index] for index in range(len(self._model.outputs))]
