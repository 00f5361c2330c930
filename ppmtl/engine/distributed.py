"""The few calls that several processes need. With one process every function here does nothing or the obvious."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import paddle
import paddle.distributed as dist
from paddle import nn


def start(device: str) -> tuple[int, int]:
    """Returns (rank, world size) after choosing the device and joining the job that the launcher started, if any.

    Args:
        device: "auto", "cpu", "gpu", "gpu:1", ...

    Raises:
        ValueError: if a GPU is asked for and this Paddle or this machine has none.
    """
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device.startswith("gpu") and not has_gpu:
        built = "finds no GPU" if paddle.is_compiled_with_cuda() else "is the CPU build"
        raise ValueError(
            f"device: got {device!r}, but this paddlepaddle {built}; use --device cpu, or install "
            "requirements-gpu.txt on a machine with CUDA"
        )
    paddle.set_device(("gpu" if has_gpu else "cpu") if device == "auto" else device)
    world_size = dist.get_world_size()
    if world_size > 1:
        dist.init_parallel_env()
    return dist.get_rank(), world_size


def wrap(model: nn.Layer) -> nn.Layer:
    """Returns the model for several processes: same initial weights everywhere, SyncBatchNorm on GPU."""
    if dist.get_world_size() == 1:
        return model
    if paddle.get_device().startswith("gpu"):  # the CPU kernel does not exist (reference/paddle.md, T14)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return paddle.DataParallel(model)


def unwrap(model: nn.Layer) -> nn.Layer:
    """Returns the model inside :func:`wrap`."""
    return model._layers if isinstance(model, paddle.DataParallel) else model


def no_sync(model: nn.Layer) -> AbstractContextManager[None]:
    """Returns a context in which backward does not communicate: three backwards share one reduction at the step's end."""
    return model.no_sync() if isinstance(model, paddle.DataParallel) else nullcontext()


def average_gradients(parameters: Sequence[paddle.Tensor]) -> None:
    """Averages gradients over all processes in one fused all-reduce. Every process must have the same set of gradients."""
    if dist.get_world_size() > 1:
        from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

        fused_allreduce_gradients(list(parameters), None)
