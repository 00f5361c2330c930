"""One real training step on small inputs: how far the estimates of ``cost.py`` are from this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn

from ppmtl.config.settings import Settings, named_views
from ppmtl.structures import Size
from ppmtl.studies import cost
from ppmtl.tasks.base import Task
from ppmtl.train.log import peak_memory_mib
from ppmtl.train.optim import build_optimizer

_ENOUGH_FLOP = 3e11  # per source: some ten seconds on one core


@dataclass(frozen=True)
class SourceMeasurement:
    """One source's forward and backward pass: counted operations and measured seconds."""

    source: str
    size: Size
    batch_size: int
    flop: int
    seconds: float


@dataclass(frozen=True)
class StepMeasurement:
    """One step here.

    Attributes:
        flop_per_second: throughput over all sources.
        estimated_bytes: weights, gradients, AdamW's moments and the largest source's activations.
        measured_bytes: by how much the process's peak grew; 0 for a model so small that importing Paddle took more.
    """

    sources: list[SourceMeasurement]
    flop_per_second: float
    estimated_bytes: int
    measured_bytes: int


def measure_step(
    build: Callable[[], nn.Layer], settings: Settings, tasks: Mapping[str, Task[Any]], sizes: Mapping[str, Size]
) -> StepMeasurement:
    """Times one step, source by source; the optimizer's own step is taken too, but not timed.

    Call it before anything else that needs memory: the process's peak is compared with what it was before.
    """
    before = peak_memory_mib()
    model = build()
    optimizer = build_optimizer(model, settings.optimizer)
    views = named_views(settings.sources).items()
    supervised = {name: {task: tasks[task] for task in view.tasks} for name, (_, view) in views}
    sources = [_measure_source(model, name, sizes[name], chosen) for name, chosen in supervised.items()]
    optimizer.step()
    grown = round((peak_memory_mib() - before) * 2**20)
    # only now: measuring activations holds memory itself
    kept = max(cost.SMALL_BATCH * cost.measure_activations(model, s.size, supervised[s.source]) for s in sources)
    state = 16 * sum(sum(parts.values()) for parts in cost.count_parameters(model).values())
    return StepMeasurement(sources, sum(s.flop for s in sources) / sum(s.seconds for s in sources), state + kept, grown)


def _measure_source(model: nn.Layer, name: str, size: Size, tasks: Mapping[str, Task[Any]]) -> SourceMeasurement:
    for shrink in (1, 2, 4, 8):  # large inputs are halved until a pass takes seconds
        smaller = cost.small_size(size, shrink)
        macs = sum(cost.count_macs(model, smaller, tasks, training=True).values())
        flop = cost.SMALL_BATCH * macs * cost.FLOP_PER_MAC * cost.FORWARD_AND_BACKWARD
        if flop <= _ENOUGH_FLOP:
            break
    images = paddle.randint(0, 256, [cost.SMALL_BATCH, *smaller, 3], "int32").astype("uint8")
    targets = cost.example_targets(tasks, cost.SMALL_BATCH, smaller)
    model.train()
    for _ in range(2):  # the first run also pays for memory and kernel selection
        started = time.perf_counter()
        terms = model(images, targets=targets)
        loss = paddle.add_n([value for of_task in terms.values() for value in of_task.values()])
        loss.backward()
        float(loss)  # waits for a GPU
        seconds = time.perf_counter() - started
    return SourceMeasurement(name, smaller, cost.SMALL_BATCH, flop, seconds)
