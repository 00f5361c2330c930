"""How long the stages of a prediction take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ppmtl import tables
from ppmtl.predict.pipeline import Pipeline
from ppmtl.system import peak_memory_mib

WARM_UP_RUNS = 5  # the first runs prepare kernels and fill caches
STAGES = ("preprocess", "inference", "postprocess")


def benchmark(pipeline: Pipeline, images: Sequence[tuple[np.ndarray, str]], runs: int) -> str:
    """A table of milliseconds per run of ``batch_size`` (image, name), used in turn, and the throughput."""
    size = pipeline.batch_size
    times = np.empty((runs, len(STAGES) + 1))
    for run in range(-WARM_UP_RUNS, runs):
        chosen = [images[(run * size + i) % len(images)] for i in range(size)]
        before, started = dict(pipeline.seconds), time.perf_counter()
        pipeline.predict([image for image, _ in chosen], [name for _, name in chosen])
        if run >= 0:
            stages = [pipeline.seconds[stage] - before[stage] for stage in STAGES]
            times[run] = [*stages, time.perf_counter() - started]
    rows = [
        [stage, *(f"{1e3 * value:.2f}" for value in (values.mean(), *np.percentile(values, [50, 99])))]
        for stage, values in zip((*STAGES, "total"), times.T, strict=True)
    ]
    return (
        f"{tables.markdown(['stage', 'mean, ms', 'p50, ms', 'p99, ms'], rows)}\n\n"
        f"{size / times[:, -1].mean():.2f} images/s at batch size {size}, {runs} runs after {WARM_UP_RUNS} to warm up; "
        f"peak memory {peak_memory_mib():.0f} MiB. Reading images and writing results are not in it."
    )
