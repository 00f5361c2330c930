"""AdamW's step and the moving average of all parameters in one call each, on CPU: Paddle starts an operator per parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import paddle

from ppmtl.models import _cpu_kernels as kernels

_MOMENTS = ("_moment1_acc_str", "_moment2_acc_str", "_beta1_pow_acc_str", "_beta2_pow_acc_str")


def step(optimizer: paddle.optimizer.AdamW, groups: Sequence[dict[str, Any]]) -> None:
    """What ``optimizer.step()`` does, in its own tensors, for float32 parameters on CPU that have moments already.

    Args:
        optimizer: without a clip of its own, whose groups have a weight decay each.
        groups: its parameter groups.
    """
    moments = [optimizer._accumulators[getattr(optimizer, name)] for name in _MOMENTS]
    table, rates, rate, kept = [], [], optimizer.get_lr(), []
    for group in groups:
        for parameter in group["params"]:
            if (gradient := parameter.grad) is None:
                continue
            gradient = gradient.contiguous()
            kept.append(gradient)  # its address is used below
            tensors = (parameter, gradient, *(of[parameter.name] for of in moments))
            table.append([*(tensor.data_ptr() for tensor in tensors), parameter.size])
            own = rate * parameter.optimize_attr["learning_rate"]
            rates.append([own, own * group["weight_decay"]])
    addresses, numbers = np.array(table, np.int64), np.array(rates, np.float32)
    kernels.prepare()
    kernels.run(kernels.adamw, len(table), addresses.ctypes.data, numbers.ctypes.data, optimizer._beta1, optimizer._beta2,
                optimizer._epsilon, len(table))  # fmt: skip


def move_averages(pairs: Iterable[tuple[paddle.Tensor, paddle.Tensor]], share: float) -> None:
    """average += share * (value - average) for all pairs (average, value) of float32 tensors on CPU."""
    table = np.array([[a.data_ptr(), value.data_ptr(), a.size] for a, value in pairs], np.int64)
    kernels.prepare()
    kernels.run(kernels.move_averages, len(table), table.ctypes.data, share, len(table))
