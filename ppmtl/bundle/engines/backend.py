"""A bundle -> the backend that runs it: the backbone once, then only the heads that are asked for.

Three engines fill one role, so only the last digits of numbers depend on the choice. Each lies in a file that imports its
engine and is imported only when it is used; it offers ``NAME``, ``ERRORS`` (what loading and running may raise),
``check_options`` and ``open_graph``.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppmtl.bundle.reading import Bundle
from ppmtl.bundle.settings import IMAGE_SIZE, IMAGES
from ppmtl.ops.beam_search import best_sequences

EngineName = Literal["paddle", "onnxruntime", "openvino"]
RunMode = Literal["paddle", "trt_fp32", "trt_fp16"]

_MODULES = {"paddle": "paddle_inference", "onnxruntime": "onnx_runtime", "openvino": "openvino_runtime"}
_RUNS = {"paddle": ("paddle",), "paddle-json": ("paddle",), "onnx": ("onnxruntime", "openvino")}


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs graphs.

    Attributes:
        device: "cpu", "gpu" or "gpu:1"; case does not matter.
        cpu_threads: per run; None = :func:`usable_cores`.
        mkldnn: oneDNN kernels on CPU, about 2 times faster than without. Only Paddle Inference can do without.
        bf16: convolutions, linears and normalisations in bfloat16 on CPU; pays where the bundle was exported with pointwise
            convolutions.
        run_mode: "trt_fp32" or "trt_fp16" hands the graphs to TensorRT (GPU only).
    """

    device: str = "cpu"
    cpu_threads: int | None = None
    mkldnn: bool = True
    bf16: bool = False
    run_mode: RunMode = "paddle"

    def __post_init__(self) -> None:
        gpu, mode = self.gpu, self.run_mode
        for wrong, message in (
            (self.threads < 1, f"cpu_threads: got {self.cpu_threads}; give at least 1, or leave it out"),
            (mode != "paddle" and gpu is None, f"run_mode {mode}: TensorRT needs a GPU; add --device GPU, or leave it out"),
            (self.bf16 and gpu is not None, "bf16 is for CPUs; on a GPU use run_mode trt_fp16, or leave it out"),
            (self.bf16 and not self.mkldnn, "bf16 is computed by oneDNN: switch mkldnn on, or leave bf16 out"),
            (self.bf16 and not has_bf16(), "bf16: this CPU has neither avx512_bf16 nor amx_bf16 among the flags of "
             "/proc/cpuinfo, so it would be slower than float32; leave it out"),
        ):  # fmt: skip
            if wrong:
                raise ValueError(message)

    @property
    def gpu(self) -> int | None:
        """The number of the GPU, or None for CPU."""
        kind, colon, number = self.device.lower().partition(":")
        if kind == "cpu" and not colon:
            return None
        if kind == "gpu" and (not colon or number.isdecimal()):
            return int(number or 0)
        raise ValueError(f"device: got {self.device!r}; allowed: cpu, gpu, gpu:1 (the number of the card)")

    @property
    def threads(self) -> int:
        """CPU threads per run."""
        return self.cpu_threads or usable_cores()


# A loaded graph. Inputs go by name; outputs by order, since engines name them as they like. They stay valid in later runs.
Graph = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


class BundleBackend:
    """Runs a bundle; a backend of ``ppmtl.predict.pipeline.Pipeline``.

    A head's graph is loaded when it is first asked for, and only run when asked for. Calls from several threads wait for
    one another, because an engine's graph holds its own inputs and outputs. ``open_graph`` loads one graph from its files.
    """

    def __init__(self, bundle: Bundle, open_graph: Callable[[tuple[Path, ...]], Graph]) -> None:
        self._bundle, self._open = bundle, open_graph
        self._graphs: dict[str, Graph] = {}
        self._lock = threading.Lock()

    def __call__(self, images: np.ndarray, tasks: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        """{task: raw arrays} for (B, H, W, 3) uint8 RGB images.

        Raises:
            ValueError: for a task that was not chosen when the bundle was read, an input of a size that the network does
                not take, or if the engine fails.
        """
        folder, fixed, (height, width) = self._bundle.folder, self._bundle.settings.input, images.shape[1:3]
        unknown = [name for name in tasks if name not in self._bundle.tasks]
        if unknown:
            raise ValueError(f"{folder}: was opened for {', '.join(self._bundle.tasks)}; cannot run {unknown}")
        if fixed.size is not None and (height, width) != fixed.size:
            raise ValueError(
                f"{folder}: was exported for inputs of {fixed.size[0]}x{fixed.size[1]} (H x W) only, got {height}x{width}; "
                "export it without a fixed size, or show images at that size"
            )
        if min(height, width) < fixed.min_side:
            raise ValueError(
                f"{folder}: the network input must have sides of at least {fixed.min_side} px, got {height}x{width} "
                "(H x W); show images larger"
            )
        with self._lock:
            return self._run(images, tasks, fixed.batch)

    def features(self, images: np.ndarray, task: str | None = None) -> dict[str, np.ndarray]:
        """All that heads may ask for, by name: runs the backbone alone. ``__call__`` is what locks and checks.

        ``task`` is one whose images may be normalised in its own way; None = as the backbone's graph does it.
        """
        trunk, sizes = self._bundle.settings.trunk, {IMAGE_SIZE: np.asarray(images.shape[1:3], np.int32)}
        outputs = self._graph(trunk.file)(self.images(images, task))
        return dict(zip(trunk.outputs, outputs, strict=True)) | sizes

    def images(self, images: np.ndarray, task: str | None = None) -> dict[str, np.ndarray]:
        """The input of the backbone's graph for images that :meth:`features` takes."""
        pixels = None if task is None else self._bundle.settings.heads[task].pixels
        images = images.astype(self._bundle.settings.trunk.images, copy=False)
        if pixels is not None:
            images = images * np.asarray(pixels.factor, np.float32) + np.asarray(pixels.shift, np.float32)
        return {IMAGES: np.ascontiguousarray(images)}

    def head(self, name: str, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One task's raw arrays for what :meth:`features` returned."""
        head = self._bundle.settings.heads[name]
        arrays = self._graph(head.file)({key: features[key] for key in head.inputs})
        if head.steps is None:
            return dict(zip(head.outputs, arrays, strict=True))
        graph, (log_probs, state, memory) = self._graph(head.steps.file), arrays

        def step(tokens: np.ndarray, rows: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            following, state = graph({"tokens": tokens, "rows": rows, "state": state, "memory": memory})
            return following, state

        return best_sequences(log_probs, state, step, **asdict(head.steps.search))

    def _run(self, images: np.ndarray, tasks: Sequence[str], batch: int | None) -> dict[str, dict[str, np.ndarray]]:
        if batch is None or len(images) == batch:
            heads, features = self._bundle.settings.heads, {}
            for name in tasks:
                if heads[name].pixels not in features:
                    features[heads[name].pixels] = self.features(images, name)
            return {name: self.head(name, features[heads[name].pixels]) for name in tasks}
        missing = -len(images) % batch  # a graph takes exactly so many images: the last part is filled with zeros
        filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        parts = [self._run(filled[start : start + batch], tasks, batch) for start in range(0, len(filled), batch)]
        return {
            name: {key: np.concatenate([part[name][key] for part in parts])[: len(images)] for key in parts[0][name]}
            for name in tasks
        }

    def _graph(self, stem: str) -> Graph:
        if stem not in self._graphs:
            self._graphs[stem] = self._open(self._bundle.files(stem))
        return self._graphs[stem]


def open_backend(bundle: Bundle, *, engine: EngineName | None = None, **options: Any) -> BundleBackend:
    """The backend that runs a bundle; no ``engine`` = ONNX Runtime for .onnx graphs, Paddle Inference for the others.

    ``options`` are those of :class:`EngineOptions`.

    Raises:
        ValueError: if the engine is not installed or cannot run these graphs, or this machine cannot do what is asked.
    """
    graph_format, chosen = bundle.settings.graph_format, EngineOptions(**options)
    able = _RUNS[graph_format]
    name = engine or able[0]
    if name not in able:
        raise ValueError(
            f"{bundle.folder}: {name} cannot run {graph_format} graphs, {' and '.join(able)} can; choose another engine, or "
            "export with another --format"
        )
    if chosen.run_mode != "paddle" and graph_format != "paddle":
        raise ValueError(
            f"run_mode {chosen.run_mode}: Paddle hands only .pdmodel graphs to TensorRT; export with --format paddle, or leave "
            "run_mode out"
        )
    try:
        module = importlib.import_module(f"ppmtl.bundle.engines.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        package = {"paddle": "paddlepaddle"}.get(error.name or "", error.name)
        raise ValueError(f"this bundle needs {package}, which is not installed: pip install {package}") from error
    module.check_options(chosen)

    def open_graph(files: tuple[Path, ...]) -> Graph:
        try:
            graph = module.open_graph(files, chosen)
        except module.ERRORS as error:
            raise ValueError(f"{files[0]}: {module.NAME} cannot load it; export it again: {error}") from error

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            try:
                return graph(inputs)
            except module.ERRORS as error:
                shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in inputs.items())
                raise ValueError(f"{files[0].name}: {module.NAME} fails on {shapes}: {error}") from error

        return run

    return BundleBackend(bundle, open_graph)


def usable_cores() -> int:
    """OMP_NUM_THREADS if it is set; else the cores that the process may run on, no more than its container's CPU quota.

    A thread per core of the host would make a container of 2 CPUs slower, not faster.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "<microseconds or max> <period>"
    if quota.is_file():
        limit, _, period = quota.read_text().strip().partition(" ")
        if limit.isdecimal() and period.isdecimal():
            cores = min(cores, math.ceil(int(limit) / int(period)))
    return max(1, cores)


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 itself. Where it does not, oneDNN emulates it, which is slow."""
    if not cpuinfo.is_file():
        return False
    flags = {flag for line in cpuinfo.read_text().splitlines() if line.startswith("flags") for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16"})
