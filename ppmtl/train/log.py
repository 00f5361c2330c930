"""Log lines in the words that Paddle's users grep for, a progress bar on a terminal, VisualDL when asked."""

from __future__ import annotations

import logging
import resource
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import paddle

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
    """Logs a warning that is the same on every process once: on the first."""
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
        """Returns {name: mean} and starts anew."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means


def train_line(step: int, total: int, per_epoch: int, means: Mapping[str, float], images: int, eta: float) -> str:
    """Returns one training log line (PaddleDetection's field names; task losses as ``loss_<task>``).

    Args:
        step: optimizer steps done.
        total, per_epoch: of the schedule.
        means: window means; ``batch_cost`` and ``data_cost`` in seconds per step.
        images: pictures per step over all sources and processes.
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
    """Returns the peak memory so far in MiB: allocated on the GPU, resident on CPU."""
    if paddle.get_device().startswith("gpu"):
        return float(paddle.device.cuda.max_memory_allocated()) / 2**20
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (1024 if sys.platform != "darwin" else 2**20)


class VisualLog:
    """VisualDL scalars and pictures; does nothing when ``folder`` is None.

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
        """Writes an (H, W, 3) uint8 RGB picture."""
        if self._writer is not None:
            self._writer.add_image(tag, image, step)

    def __enter__(self) -> VisualLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
