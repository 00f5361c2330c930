"""Graphs in Paddle Inference, on CPU (oneDNN), GPU or through TensorRT.

Features go from backbone to head through the CPU's memory, two copies that cost 1.7 ms of 120 ms (a small ConvNeXt at
448x768); ``share_external_data`` saves them and crashes in the second run (Paddle 3.2.2, oneDNN), ``Predictor.run(list of
tensors)`` does not come back.

GPU and TensorRT follow Paddle's documentation and were not run: no GPU was at hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import inference

from ppmtl.bundle.engines.backend import EngineOptions, Graph

NAME = "Paddle Inference"
ERRORS = (ValueError, RuntimeError, NotImplementedError)
# oneDNN keeps prepared kernels per input shape. Without a limit the small demo model grows by 3.7 MiB with every new image
# size (416 to 1013 MiB after 160 sizes); with 10 it stays at 535 MiB. Augmentation needs up to 9 at a time.
_CACHED_SHAPES = 10
# What bfloat16 makes faster, and nothing else: decoding stays in float32, for 8 bits of mantissa would move a box at x = 400
# by 2 px. elementwise_add must stay out: Paddle 3.2.2 then fails in run() ("data (float32) does not match ... bfloat16").
_BF16_OPERATORS = {
    "conv2d", "fused_conv2d", "depthwise_conv2d", "fc", "matmul_v2", "fused_matmul",
    "gelu", "relu", "layer_norm", "pool2d", "transpose2",
}  # fmt: skip
_GPU_MEMORY_MB = 512  # to start with; it grows
_TRT_WORKSPACE = 1 << 30  # bytes that TensorRT may use while it tries out kernels
_TRT_MIN_OPERATORS = 3  # smaller runs of operators stay in Paddle (Paddle's own default)


def check_options(options: EngineOptions) -> None:
    """Raises ValueError if this build of Paddle cannot do what is asked."""
    if options.gpu is not None and not paddle.device.is_compiled_with_cuda():
        raise ValueError(
            "device GPU: this Paddle is built for CPUs only; install paddlepaddle-gpu (requirements-gpu.txt) or use CPU"
        )


def open_graph(files: tuple[Path, ...], options: EngineOptions) -> Graph:
    """The graph in ``files`` (graph, weights), loaded."""
    return _load(_config(files, options)) if options.run_mode == "paddle" else _tensorrt_graph(files, options)


def _config(files: tuple[Path, ...], options: EngineOptions) -> inference.Config:
    config = inference.Config(str(files[0]), str(files[1]))
    config.disable_glog_info()
    config.enable_memory_optim()
    if files[0].suffix == ".json":
        config.enable_new_executor(True)  # or memory_optim fails in run(): "Not find predictor_id 0"
    config.set_cpu_math_library_num_threads(options.threads)
    if options.gpu is not None:
        config.enable_use_gpu(_GPU_MEMORY_MB, options.gpu)
    elif not options.mkldnn:
        config.disable_mkldnn()  # on by default since Paddle 2.6
    else:
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_CACHED_SHAPES)
        if options.bf16:
            config.enable_mkldnn_bfloat16()
            config.set_bfloat16_op(_BF16_OPERATORS)
    return config


def _load(config: inference.Config) -> Graph:
    predictor = inference.create_predictor(config)
    handles = {name: predictor.get_input_handle(name) for name in predictor.get_input_names()}

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        for name, array in inputs.items():
            handles[name].copy_from_cpu(array)
        predictor.run()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]

    return run


def _tensorrt_graph(files: tuple[Path, ...], options: EngineOptions) -> Graph:
    """A graph whose engine is built for the sizes that come: the first inputs are run once to record every shape."""
    built: list[Graph] = []

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if not built:
            shapes = str(Path(tempfile.mkdtemp(prefix="ppmtl_trt_")) / "shapes.pbtxt")
            collecting = _config(files, options)
            collecting.collect_shape_range_info(shapes)
            _load(collecting)(inputs)  # the file is written when the predictor is destroyed, at the end of this line
            built.append(_load(_tensorrt_config(files, options, shapes)))
        return built[0](inputs)

    return run


def _tensorrt_config(files: tuple[Path, ...], options: EngineOptions, shapes: str) -> inference.Config:
    config, precision = _config(files, options), inference.PrecisionType
    config.enable_tensorrt_engine(
        workspace_size=_TRT_WORKSPACE,
        max_batch_size=1,  # ignored with dynamic shapes
        min_subgraph_size=_TRT_MIN_OPERATORS,
        precision_mode=precision.Half if options.run_mode == "trt_fp16" else precision.Float32,
        use_static=False,
        use_calib_mode=False,
    )
    config.enable_tuned_tensorrt_dynamic_shape(shapes, True)  # True: other sizes rebuild the engine
    return config
