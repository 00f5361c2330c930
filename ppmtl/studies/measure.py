"""One real training step on small inputs: how far the estimates of ``engine/cost.py`` are from this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import paddle
from paddle import nn

from ppmtl.config.settings import Settings
from ppmtl.structures import Size
from ppmtl.studies.cost import (
    FLOP_PER_MAC,
    FORWARD_AND_BACKWARD,
    count_macs,
    count_parameters,
    dummy_targets,
    measure_activations,
    small_size,
)
from ppmtl.train.log import peak_memory_mib
from ppmtl.train.optim import build_optimizer

_BATCH = 2  # batch norm of a 1 x 1 map cannot train on one picture
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
        estimated_bytes: weights, gradients, AdamW's moments and the largest source's activations.
        measured_bytes: by how much the process's peak grew; 0 for a model so small that importing Paddle took more.
    """

    sources: list[SourceMeasurement]
    estimated_bytes: int
    measured_bytes: int

    @property
    def flop_per_second(self) -> float:
        """Returns the throughput over all sources."""
        return sum(s.flop for s in self.sources) / sum(s.seconds for s in self.sources)


def measure_step(build: Callable[[], nn.Layer], settings: Settings, sizes: Mapping[str, Size]) -> StepMeasurement:
    """Returns what one step took, source by source; the optimizer's own step is taken too, but not timed.

    Call it before anything else that needs memory: the process's peak is compared with what it was before.

    Args:
        build: makes the model, with weights.
        settings: the run.
        sizes: {source: (height, width)} of the real inputs; large ones are halved until a pass takes seconds.
    """
    before = peak_memory_mib()
    model = build()
    optimizer = build_optimizer(model, settings.optimizer)
    sources = []
    for name, source in settings.sources.items():
        size, flop = _affordable(model, sizes[name], source.tasks)
        images = paddle.randint(0, 256, [_BATCH, *size, 3], "int32").astype("uint8")
        targets = dummy_targets(model, _BATCH, size, source.tasks)
        model.train()
        for _ in range(2):  # the first run also pays for memory and kernel selection
            started = time.perf_counter()
            terms = model(images, targets=targets)
            loss = paddle.add_n([value for of_task in terms.values() for value in of_task.values()])
            loss.backward()
            float(loss)  # waits for a GPU
            seconds = time.perf_counter() - started
        sources.append(SourceMeasurement(name, size, _BATCH, flop, seconds))
    optimizer.step()
    grown = round((peak_memory_mib() - before) * 2**20)
    # only now: measuring activations holds memory itself
    kept = max(_BATCH * measure_activations(model, s.size, settings.sources[s.source].tasks) for s in sources)
    state = 16 * sum(sum(parts.values()) for parts in count_parameters(model).values())
    return StepMeasurement(sources, state + kept, grown)


def _affordable(model: nn.Layer, size: Size, tasks: tuple[str, ...]) -> tuple[Size, int]:
    """Returns the input size to use and the operations of its forward and backward pass."""
    shrink = 1
    while True:
        smaller = small_size(size, shrink)
        macs = sum(count_macs(model, smaller, tasks, training=True).values())
        flop = _BATCH * macs * FLOP_PER_MAC * FORWARD_AND_BACKWARD
        if flop <= _ENOUGH_FLOP or shrink == 8:
            return smaller, flop
        shrink *= 2
