"""The few calls that several processes need. With one process every function here does nothing or the obvious."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@paddle.no_grad()
def average_tensors(tensors: Sequence[paddle.Tensor]) -> None:
    """Averages loose tensors in place over all processes, in one all-reduce. Every process must have the same list."""
    if dist.get_world_size() == 1 or not tensors:
        return
    joined = paddle.concat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(joined)
    parts = paddle.split(joined / dist.get_world_size(), [tensor.size for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.set_value(part.reshape(tensor.shape))


def average_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Returns {name: mean over all processes}; every process must give the same names in the same order."""
    if dist.get_world_size() == 1 or not numbers:
        return dict(numbers)
    values = paddle.to_tensor(list(numbers.values()), "float64")
    dist.all_reduce(values)
    return dict(zip(numbers, (values / dist.get_world_size()).tolist(), strict=True))


def agree(number: int) -> int:
    """Returns the largest ``number`` of all processes: what one of them knows (a signal came) all of them do."""
    if dist.get_world_size() == 1:
        return number
    value = paddle.to_tensor([number], "int32")
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value.item())
