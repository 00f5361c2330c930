"""How long the stages of a prediction take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np

from ppmtl.predict.pipeline import Pipeline

WARM_UP_RUNS = 5  # the first runs prepare kernels and fill caches
STAGES = ("preprocess", "inference", "postprocess")


def benchmark(pipeline: Pipeline, pictures: Sequence[tuple[np.ndarray, str]], runs: int) -> str:
    """Returns a table of milliseconds per run, and the throughput.

    Args:
        pipeline: what is measured; one run takes ``batch_size`` pictures.
        pictures: (picture, name); used in turn.
        runs: timed ones, after a warm-up.
    """
    size = pipeline.batch_size
    rows = np.empty((runs, len(STAGES) + 1))
    for run in range(-WARM_UP_RUNS, runs):
        chosen = [pictures[(run * size + i) % len(pictures)] for i in range(size)]
        before, started = dict(pipeline.seconds), time.perf_counter()
        pipeline.predict([image for image, _ in chosen], [name for _, name in chosen])
        if run >= 0:
            rows[run, -1] = time.perf_counter() - started
            rows[run, :-1] = [pipeline.seconds[stage] - before[stage] for stage in STAGES]
    return _table(rows * 1e3, size)


def _table(milliseconds: np.ndarray, batch_size: int) -> str:
    lines = ["| stage | mean, ms | p50, ms | p99, ms |", "|---|---|---|---|"]
    for stage, values in zip((*STAGES, "total"), milliseconds.T, strict=True):
        p50, p99 = np.percentile(values, [50, 99])
        lines.append(f"| {stage} | {values.mean():.2f} | {p50:.2f} | {p99:.2f} |")
    rate = batch_size * 1e3 / milliseconds[:, -1].mean()
    lines.append("")
    lines.append(
        f"{rate:.2f} pictures/s at batch size {batch_size}, {len(milliseconds)} runs after {WARM_UP_RUNS} to warm up; "
        f"{_peak_memory()}Reading pictures and writing results are not in it."
    )
    return "\n".join(lines)


def peak_memory_mib() -> float | None:
    """Returns the most memory that this process ever held, in MiB; None on Windows, where Python cannot ask for it."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _peak_memory() -> str:
    peak = peak_memory_mib()
    return "" if peak is None else f"peak memory {peak:.0f} MiB. "
