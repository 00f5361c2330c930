"""Log lines in the words that Paddle's users grep for, a progress bar on a terminal, VisualDL when asked."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from ppmtl.config.settings import Settings
from ppmtl.data.source import Source
from ppmtl.train import distributed
from ppmtl.train.losses import StepLosses

LOGGER = logging.getLogger("ppmtl")


def start_logging(save_dir: Path | None, rank: int = 0) -> None:
    """Sends the "ppmtl" logger to the terminal and, if given, to ``<save_dir>/train.log``; other ranks stay quiet."""
    LOGGER.handlers.clear()
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if save_dir is not None and rank == 0:
        save_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(save_dir / "train.log", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S"))
        LOGGER.addHandler(handler)


def announce(message: str, *values: object) -> None:
    """Logs a warning on rank 0 only."""
    if paddle.distributed.get_rank() == 0:
        LOGGER.warning(message, *values)


class Window:
    """Means of what happened since the last log line."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, **values: float) -> None:
        """Takes one step's numbers."""
        for name, value in values.items():
            self._sums[name] += value
            self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """{name: mean}, and starts again."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means


class Reporter:
    """Times the steps of a run, collects their numbers and logs the means; rank 0 shows a progress bar on a terminal.

    Args:
        settings: the run.
        sources: for the number of images per step.
        first_step: steps done before this process started.
        visual: gets the same numbers as scalars.
    """

    def __init__(self, settings: Settings, sources: Mapping[str, Source], first_step: int, visual: VisualLog) -> None:
        self._schedule, self._first_step, self._visual = settings.train, first_step, visual
        processes = paddle.distributed.get_world_size()
        self._images = sum(s.batch_size for s in sources.values()) * processes * settings.train.accumulate
        self._window, self._started = Window(), time.perf_counter()
        hidden = paddle.distributed.get_rank() != 0 or not sys.stderr.isatty()
        self._bar = tqdm(total=self._schedule.total_steps, initial=first_step, unit="step", leave=False, disable=hidden)
        self._step_started = self._data_cost = 0.0

    def start_step(self) -> None:
        """Starts the clock of one step."""
        self._step_started, self._data_cost = time.perf_counter(), 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Adds the time inside to the step's data cost."""
        started = time.perf_counter()
        yield
        self._data_cost += time.perf_counter() - started

    def end_step(
        self, losses: StepLosses, total_loss: float, learning_rate: float, gradient_norm: float | None
    ) -> None:
        """Takes a step's numbers; ``gradient_norm`` None = the step was left out (float16 overflow)."""
        for numbers in losses.numbers:
            self._window.add(**numbers)
        self._window.add(**({"skipped": 1} if gradient_norm is None else {"grad_norm": gradient_norm}))
        self._window.add(loss=total_loss, learning_rate=learning_rate)
        self._window.add(data_cost=self._data_cost, batch_cost=time.perf_counter() - self._step_started)
        self._bar.update()

    def log(self, done: int, factors: Mapping[str, float]) -> None:
        """Logs the means since the last line; every process has to call it."""
        means = distributed.average_numbers(self._window.take())
        means |= {f"weight_{task}": factor for task, factor in factors.items()}
        total = self._schedule.total_steps
        eta = (time.perf_counter() - self._started) / (done - self._first_step) * (total - done)
        LOGGER.info(train_line(done, total, self._schedule.steps_per_epoch, means, self._images, eta))
        self._visual.scalars(means, done, "train")

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def train_line(step: int, total: int, per_epoch: int, means: Mapping[str, float], images: int, eta: float) -> str:
    """One training log line (PaddleDetection's field names; task losses as ``loss_<task>``).

    Args:
        step: optimizer steps done.
        total, per_epoch: of the schedule.
        means: window means; ``batch_cost`` and ``data_cost`` in seconds per step.
        images: per step over all sources and processes.
        eta: seconds left.
    """
    timing = ("batch_cost", "data_cost", "learning_rate")
    losses = " ".join(f"{name}: {value:.4f}" for name, value in means.items() if name not in timing)
    epoch, inside = divmod(max(step - 1, 0), per_epoch)
    return (
        f"Epoch: [{epoch + 1}] [{inside + 1:>4}/{per_epoch}] step: {step}/{total} "
        f"learning_rate: {means['learning_rate']:.6f} {losses} eta: {timedelta(seconds=round(eta))} "
        f"batch_cost: {means['batch_cost']:.3f} data_cost: {means['data_cost']:.3f} "
        f"ips: {images / means['batch_cost']:.2f} images/s max_mem: {peak_memory_mib():.0f} MB"
    )


def peak_memory_mib() -> float:
    """Peak memory so far in MiB: allocated on the GPU, resident on CPU."""
    if paddle.get_device().startswith("gpu"):
        return float(paddle.device.cuda.max_memory_allocated()) / 2**20
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (1024 if sys.platform != "darwin" else 2**20)


class VisualLog:
    """VisualDL scalars and images; does nothing when ``folder`` is None.

    Raises:
        ValueError: if VisualDL is asked for and not installed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from visualdl import LogWriter
        except ImportError as error:
            raise ValueError(
                "--use_vdl needs the visualdl package: pip install -r requirements-vdl.txt, or leave --use_vdl out"
            ) from error
        self._writer = LogWriter(str(folder))

    def scalars(self, values: Mapping[str, float], step: int, prefix: str) -> None:
        """Writes {prefix/name: value} at ``step``."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Writes an (H, W, 3) uint8 RGB image."""
        if self._writer is not None:
            self._writer.add_image(tag, image, step)

    def __enter__(self) -> VisualLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
