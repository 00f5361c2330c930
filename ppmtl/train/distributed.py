"""What several training processes do together. All functions are no-ops in a single process."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import paddle
import paddle.distributed as dist
from paddle import nn

from ppmtl.predict.processes import JobError, Processes
from ppmtl.train.watch import Watch

Key = TypeVar("Key")

_watch: Watch | None = None  # of this process, once it has joined a job
_BATCH_NORM = (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)  # not SyncBatchNorm, whose statistics agree already


def start(device: str) -> tuple[int, int]:
    """Chooses the device ("auto", "cpu", "gpu:1"), joins the job, if any, and returns (rank, number of processes).

    Raises:
        ValueError: if a GPU is asked for and this Paddle or this machine has none.
    """
    global _watch
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device.startswith("gpu") and not has_gpu:
        built = "finds no GPU" if paddle.is_compiled_with_cuda() else "is the CPU build"
        raise ValueError(
            f"device: got {device!r}, but this paddlepaddle {built}; use --device cpu, or install "
            "requirements-gpu.txt on a machine with CUDA"
        )
    paddle.set_device(("gpu" if has_gpu else "cpu") if device == "auto" else device)
    if paddle.get_device() == "cpu":
        # By default a transpose only changes strides, and the next operator copies it to order in a naive loop: a quarter
        # of a training step (docs/benchmarks.md). Without, a transpose is one fast copy, and no slice or reshape is a view of
        # its source: nothing here writes in place through one.
        paddle.set_flags({"FLAGS_use_stride_kernel": False})
    if dist.get_world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()
        hosts = [endpoint.rpartition(":")[0] for endpoint in dist.ParallelEnv().trainer_endpoints]
        _watch = Watch(processes(), hosts[0] if len(set(hosts)) > 1 else "127.0.0.1")
    return dist.get_rank(), dist.get_world_size()


@contextmanager
def guard() -> Iterator[None]:
    """Wraps all that one process of a job does: if one fails or dies, all end within seconds and say why.

    Raises:
        JobError: in the process that failed, if there are several; in place of what it raised, naming its rank.
    """
    try:
        yield
    except SystemExit:  # all chose it, after a signal
        _wait_for_all()
        raise
    except BaseException as error:  # truly every error: the others would wait for this process
        if dist.get_world_size() == 1:
            raise
        # Paddle's own errors are RuntimeError or OSError without errno
        kinds = (ValueError, FloatingPointError, KeyboardInterrupt)
        explained = isinstance(error, kinds) or getattr(error, "errno", None) is not None
        # A broken all-reduce is often the first sign that another process died
        if _watch is not None and _watch.failed.wait(0 if explained else 5):
            raise SystemExit(1) from error
        if not explained or os.environ.get("PPMTL_TRACEBACK") == "1":
            traceback.print_exception(error)
        what = str(error) if explained and str(error) else f"{type(error).__name__}: {error}"
        message = f"rank {dist.get_rank()} of {dist.get_world_size()}: {what}"
        if _watch is not None:
            _watch.report(message)
        raise JobError(message) from error
    _wait_for_all()


def _wait_for_all() -> None:
    """Rank 0 may still be writing, and Paddle's launcher ends a job soon after its first process."""
    if _watch is not None:
        _watch.close()


def _barrier() -> None:
    """Waits for all processes before a collective call on CPU; it costs .2 ms.

    gloo gives up when another process comes 30 s later, which an evaluation, a checkpoint or a slow disk easily takes;
    Paddle has no way to set that time. NCCL's is half an hour, and there the queue of the GPU should not run dry.
    """
    if _watch is not None and paddle.get_device() == "cpu":
        _watch.barrier()


def processes() -> Processes:
    """This job's processes, for work that they share."""

    def all_gather(value: Any) -> list[Any]:
        values: list[Any] = []  # pickled, which is safe here: they come from our own processes
        _barrier()
        dist.all_gather_object(values, value)
        return values

    world_size = dist.get_world_size()
    return Processes(dist.get_rank(), world_size, all_gather) if world_size > 1 else Processes()


def wrap(model: nn.Layer) -> nn.Layer:
    """The model for several processes: same initial weights everywhere, SyncBatchNorm on GPU."""
    if dist.get_world_size() == 1:
        return model
    if paddle.get_device().startswith("gpu"):  # the CPU kernel does not exist (reference/paddle.md, T14)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    _barrier()
    return paddle.DataParallel(model)


def no_sync(model: nn.Layer) -> AbstractContextManager[None]:
    """A context in which backward does not communicate: all backwards of a step share one reduction at its end."""
    return model.no_sync() if isinstance(model, paddle.DataParallel) else nullcontext()


@paddle.no_grad()
def average_gradients(parameters: Sequence[paddle.Tensor]) -> None:
    """Averages gradients over all processes in one fused all-reduce (one per 128 MiB, Paddle's bucket).

    A gradient that only some processes have counts as zero on the others, as in the joined batch.
    """
    if dist.get_world_size() == 1 or not parameters:  # gloo refuses to add up nothing
        return
    from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

    # The fused buffers would have different lengths: gloo then hangs or adds up the wrong numbers, without a word
    owners = paddle.to_tensor([parameter.grad is not None for parameter in parameters], "int32")
    _barrier()
    dist.all_reduce(owners)
    for parameter, count in zip(parameters, owners.tolist(), strict=True):
        if count and parameter.grad is None:
            parameter.grad = paddle.zeros_like(parameter)
    fused_allreduce_gradients(list(parameters), None)


@paddle.no_grad()
def average_tensors(tensors: Sequence[paddle.Tensor]) -> None:
    """Averages tensors in place over all processes, in one all-reduce. Every process must have the same list."""
    if dist.get_world_size() == 1 or not tensors:
        return
    joined = paddle.concat([tensor.flatten() for tensor in tensors])
    _barrier()
    dist.all_reduce(joined)
    parts = paddle.split(joined / dist.get_world_size(), [tensor.size for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.set_value(part.reshape(tensor.shape))


def average_numbers(numbers: Mapping[Key, float]) -> dict[Key, float]:
    """{key: mean over all processes}; every process must give the same keys in the same order."""
    if dist.get_world_size() == 1:
        return dict(numbers)
    values = paddle.to_tensor(list(numbers.values()), "float64")
    average_tensors([values])
    return dict(zip(numbers, values.tolist(), strict=True))


def agree(number: int) -> int:
    """The largest ``number`` of all processes: what one of them knows (a signal came) all of them do."""
    if dist.get_world_size() == 1:
        return number
    value = paddle.to_tensor([number], "int32")
    _barrier()
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value.item())


def average_buffers(model: nn.Layer, *averages: Mapping[str, paddle.Tensor]) -> None:
    """Averages BatchNorm's running statistics over all processes in one all-reduce; before evaluating and saving.

    Without SyncBatchNorm (on CPU) every process counts its own part of the data, and a checkpoint would depend on rank
    0's alone. The running statistics are linear in what they have seen, so it does not matter how often they are
    averaged. ``averages`` are other tensors under the model's names: those of a moving average of the weights.
    """
    names = [
        f"{name}.{statistic}"
        for name, layer in model.named_sublayers()
        if isinstance(layer, _BATCH_NORM) and layer.training  # frozen ones agree, and the sum would round them
        for statistic in ("_mean", "_variance")
    ]
    average_tensors([tensors[name] for tensors in (model.state_dict(), *averages) for name in names])
