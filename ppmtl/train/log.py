"""Log lines in the words that Paddle's users grep for, a progress bar on a terminal, log.jsonl, VisualDL when asked."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import paddle
from tqdm import tqdm

from ppmtl import system
from ppmtl.config.settings import Settings
from ppmtl.data.source import Source
from ppmtl.train import distributed
from ppmtl.train.log_file import LogFile
from ppmtl.train.losses import StepLosses

LOGGER = logging.getLogger("ppmtl")


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes log lines above the progress bars that are shown, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def start_logging(save_dir: Path, rank: int) -> None:
    """Sends the "ppmtl" logger to the terminal and to ``<save_dir>/train.log``; ranks other than 0 stay quiet."""
    LOGGER.handlers.clear()
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handlers: list[logging.Handler] = [TerminalHandler(sys.stdout)]
    if rank == 0:
        save_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(save_dir / "train.log", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S"))
        LOGGER.addHandler(handler)


def announce(message: str, *values: object) -> None:
    """Logs a warning on rank 0 only."""
    if paddle.distributed.get_rank() == 0:
        LOGGER.warning(message, *values)


class Reporter:
    """Times the steps of a run, collects their numbers and logs the means; rank 0 shows a progress bar on a terminal.

    Attributes:
        visual: where scalars and images go as well.
    """

    def __init__(self, settings: Settings, sources: Mapping[str, Source], first_step: int, visual: VisualLog) -> None:
        self._schedule, self._first_step, self.visual = settings.train, first_step, visual
        self._sources = sources if settings.train.unreadable == "skip" else {}
        self._named: set[str] = set()
        is_main = paddle.distributed.get_rank() == 0
        self._file = LogFile(Path(settings.save_dir), first_step) if is_main else None
        self._new_line()
        hidden = not is_main or not sys.stderr.isatty()
        self._bar = tqdm(total=self._schedule.total_steps, initial=first_step, unit="step", leave=False, disable=hidden)
        self._started, self._step_started, self._data_cost = time.perf_counter(), 0.0, 0.0

    def _new_line(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)  # of value * weight
        self._weights: dict[str, float] = defaultdict(float)
        self._labelled: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()

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
        norm = {"skipped": 1.0} if gradient_norm is None else {"grad_norm": gradient_norm}
        rates = {"loss": total_loss, "learning_rate": learning_rate}
        seconds = time.perf_counter() - self._step_started
        costs = {"data_cost": self._data_cost, "batch_cost": seconds, "images": float(losses.images)}
        once = {name: (value, 1.0) for name, value in (norm | rates | costs).items()}
        for numbers in (*losses.numbers, once):
            for name, (value, weight) in numbers.items():
                self._sums[name] += value * weight
                self._weights[name] += weight
        for task, (labelled, images) in losses.labelled.items():
            self._labelled[task] += labelled
            self._wanted[task] += images
        self._bar.update()

    def log(self, done: int, factors: Mapping[str, float]) -> None:
        """Logs the means since the last line under PaddleDetection's field names; every process has to call it.

        The mean of a loss is over the labelled images of the steps that had the task. Where images lacked a label, the
        line ends in the count of those that had one.
        """
        sums, weights = distributed.average_numbers(self._sums), distributed.average_numbers(self._weights)
        means = {name: value / weights[name] for name, value in sums.items() if weights[name]}
        means |= {f"weight_{task}": factor for task, factor in factors.items()}
        gaps = {f"labelled_{task}": (self._labelled[task], wanted) for task, wanted in self._wanted.items()
                if self._labelled[task] < wanted}  # fmt: skip
        images = means.pop("images") * paddle.distributed.get_world_size()
        replaced = self._replaced()
        self._new_line()
        total, per_epoch = self._schedule.total_steps, self._schedule.steps_per_epoch
        epoch, inside = divmod(done - 1, per_epoch)
        seconds_left = (time.perf_counter() - self._started) / (done - self._first_step) * (total - done)
        elsewhere = ("batch_cost", "data_cost", "learning_rate")
        LOGGER.info(
            f"Epoch: [{epoch + 1}] [{inside + 1:>4}/{per_epoch}] step: {done}/{total} "
            f"learning_rate: {means['learning_rate']:.6f} "
            f"{' '.join(f'{name}: {value:.4f}' for name, value in means.items() if name not in elsewhere)} "
            f"{''.join(f'{name}: {labelled}/{wanted} ' for name, (labelled, wanted) in gaps.items())}"
            f"{''.join(f'{name}: {count} ' for name, count in replaced.items())}"
            f"eta: {timedelta(seconds=round(seconds_left))} "
            f"batch_cost: {means['batch_cost']:.3f} data_cost: {means['data_cost']:.3f} "
            f"ips: {images / means['batch_cost']:.2f} images/s max_mem: {peak_memory_mib():.0f} MB"
        )
        shares = {name: labelled / wanted for name, (labelled, wanted) in gaps.items()}
        self.visual.scalars(means | shares | replaced, done, "train")
        if self._file is not None:
            costs = {"ips": images / means["batch_cost"], "max_mem": peak_memory_mib()}
            self._file.add(done, {"epoch": epoch + 1, **means, **shares, **replaced, **costs})

    def evaluated(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes what an evaluation after ``step`` steps measured, {"score" or "task.metric": value}, to the file."""
        if self._file is not None:
            self._file.add(step, {"evaluation": values})

    def _replaced(self) -> dict[str, int]:
        """How many samples of all processes were replaced since the run, or its last part, started; names new files."""
        if not self._sources:
            return {}
        replaced = [text for source in self._sources.values() for text in source.replaced]
        for text in dict.fromkeys(replaced):
            if text not in self._named:
                LOGGER.warning("train.unreadable: another sample was taken: %s", text)
        self._named |= set(replaced)
        mean = distributed.average_numbers({"unreadable": float(len(replaced))})["unreadable"]
        return {"unreadable": round(mean * paddle.distributed.get_world_size())}

    def close(self) -> None:
        """Takes the progress bar away."""
        self._bar.close()


def peak_memory_mib() -> float:
    """Peak memory so far in MiB: allocated on the GPU, resident on CPU (NaN on Windows)."""
    if paddle.get_device().startswith("gpu"):
        return float(paddle.device.cuda.max_memory_allocated()) / 2**20
    return system.peak_memory_mib()


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

    def close(self) -> None:
        """Writes what is still in memory."""
        if self._writer is not None:
            self._writer.close()
