"""One model at work: who is admitted, which thread does what, and when work is given up."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ppmtl.predict.pipeline import Backend
from ppmtl.structures import Size
from ppmtl_service.answers import encode_result
from ppmtl_service.batching import Batcher, Dropped, Ticket
from ppmtl_service.errors import ServiceError
from ppmtl_service.intake import Upload, decode, picture_size
from ppmtl_service.logs import log
from ppmtl_service.metrics import Metrics
from ppmtl_service.model import Model
from ppmtl_service.options import Options
from ppmtl_service.uploads import UploadBudget
from ppmtl_service.wanted import Wanted

State = Literal["loading", "ready", "draining", "failed"]
STAGES = ("decode", "queue", "predict", "encode")
_WARM_UP_SIZE = (720, 1280)  # only for tasks that take pictures at their own size


@dataclass
class _Job:
    """The work on one picture. ``seconds`` are filled in as it goes on."""

    upload: Upload
    size: Size
    wanted: Wanted
    ticket: Ticket = field(default_factory=Ticket)
    admitted: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def give_up(self) -> None:
        """Makes the work end at its next step; its bytes are let go of at once."""
        self.ticket.cancelled.set()
        self.upload.data = b""


class PixelBudget:
    """Keeps the pictures that are worked on at one moment below ``limit`` pixels in all; first come, first served."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._turn, self._freed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for ``pixels``, and keeps it during the block. A picture alone always has room."""
        with self._turn, self._freed:  # the turn keeps small pictures from passing a large one for ever
            self._freed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._freed:
                self._held -= pixels
                self._freed.notify_all()


class Service:
    """Predicts pictures for many clients at once.

    Args:
        model: what is served.
        options: the limits.
    """

    def __init__(self, model: Model, options: Options) -> None:
        self.model, self.options, self.metrics = model, options, Metrics()
        self.state: State = "loading"
        self.failure: BaseException | None = None
        self.in_flight = 0  # requests to /v1/predict; counted on the event loop
        self.uploads = UploadBudget(options.upload_bytes)
        self.batch = model.batch or options.max_batch
        self._batcher = Batcher(
            model.open_backend,
            max_batch=self.batch,
            max_delay_s=options.max_delay_ms / 1000,
            on_batch=self.metrics.batch_size.observe,
        )
        self._pool = ThreadPoolExecutor(options.workers, "picture")
        self._checks = ThreadPoolExecutor(1, "header")
        self._pixels = PixelBudget(options.max_pixels)
        self._admitted, self._lock = 0, threading.Lock()
        self._seconds_per_picture = 0.1  # a running mean, for Retry-After

    def start(self) -> None:
        """Begins to open the model; ``state`` tells when it is ready or why it is not."""
        self._batcher.start(self._warm_up).add_done_callback(self._opened)

    def drain(self) -> None:
        """Refuses new work from now on; what was admitted is finished."""
        if self.state != "failed":
            self.state = "draining"
        self.metrics.ready.set(0)

    def close(self) -> None:
        """Ends all threads; admitted work that has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._checks.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    @property
    def alive(self) -> bool:
        """Returns whether the service can still do something useful."""
        return self._batcher.alive

    @property
    def admitted(self) -> int:
        """Returns how many pictures are waiting or running."""
        return self._admitted

    def require_ready(self) -> None:
        """Raises ServiceError 503 unless pictures can be taken."""
        if self.state != "ready":
            raise ServiceError(
                503, f"not_ready_{self.state}", f"the service is {self.state}; try again later", {"Retry-After": "5"}
            )

    def require_room(self, pictures: int) -> None:
        """Raises ServiceError 429 if so many more pictures do not fit into the queue."""
        if self._admitted + pictures > self.options.queue_size:
            wait = self._admitted * self._seconds_per_picture / self.options.workers
            raise ServiceError(
                429,
                "queue_full",
                f"{self._admitted} of {self.options.queue_size} places are taken, {pictures} wanted; try again later",
                {"Retry-After": str(min(60, max(1, math.ceil(wait))))},
            )

    async def predict(self, uploads: Sequence[Upload], wanted: Wanted) -> tuple[list[bytes], dict[str, float]]:
        """Returns each picture's result as JSON, and the seconds of each stage, of the picture that took longest there.

        Cancelling it gives up what has not begun.

        Raises:
            ServiceError: 413, 415 or 422 for a bad picture, 429 if the queue is full, 503 when not ready.
        """
        loop = asyncio.get_running_loop()
        sizes = await loop.run_in_executor(self._checks, self._check, uploads, wanted.tta)
        self.require_ready()
        self.require_room(len(uploads))
        jobs = [_Job(upload, size, wanted) for upload, size in zip(uploads, sizes, strict=True)]
        futures = [self._submit(job) for job in jobs]
        try:
            results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        except Dropped as error:
            raise ServiceError(503, "not_ready_draining", "the service stops; try again later") from error
        finally:
            for job, future in zip(jobs, futures, strict=True):
                if not future.done():
                    job.give_up()
                    future.cancel()
        return results, {stage: max(job.seconds[stage] for job in jobs) for stage in STAGES}

    def _check(self, uploads: Sequence[Upload], tta: bool) -> list[Size]:
        return [picture_size(upload, self.options, tta=tta) for upload in uploads]

    def _submit(self, job: _Job) -> Future[bytes]:
        self._count(+1)
        future = self._pool.submit(self._work, job)
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, by: int) -> None:
        with self._lock:
            self._admitted += by
            self.metrics.queue_depth.set(self._admitted)

    def _work(self, job: _Job) -> bytes:
        """Returns one picture's result as JSON; runs on a thread of the pool."""
        with self._pixels.hold(job.size[0] * job.size[1]):
            started = time.perf_counter()
            job.ticket.check()
            upload, job.upload = job.upload, Upload(job.upload.name, b"")
            image = decode(upload)
            del upload
            decoded = time.perf_counter()
            pipeline = self.model.pipeline(
                job.wanted.tasks,
                lambda images, names: self._batcher.run(images, names, job.ticket),
                image.shape[:2],
                augment=job.wanted.tta,
            )
            job.ticket.inputs_left = len(pipeline.views(image.shape[:2]))
            with self._batcher.member(job.ticket):
                predictions = pipeline.predict([image], [job.upload.name])[0]
            predicted = time.perf_counter()
            result = encode_result(job.upload.name, image.shape[:2], predictions, pipeline.tasks, job.wanted)
        ended = time.perf_counter()
        job.seconds = {
            "decode": decoded - started,
            "queue": started - job.admitted + job.ticket.waited_s,
            "predict": predicted - decoded - job.ticket.waited_s,
            "encode": ended - predicted,
        }
        self._record(job, ended - started)
        return result

    def _record(self, job: _Job, seconds: float) -> None:
        self.metrics.images.inc()
        for stage, value in job.seconds.items():
            self.metrics.stage_seconds.labels(stage).observe(value)
        with self._lock:
            self._seconds_per_picture += 0.1 * (seconds - self._seconds_per_picture)

    def _warm_up(self, backend: Backend) -> None:
        """Runs the network on grey pictures, one and as many as run together, so that no client pays for the first run."""
        names = tuple(self.model.tasks)
        for count in sorted({1, self.batch}):
            pipeline = self.model.pipeline(names, backend, _WARM_UP_SIZE, augment=False)
            pipeline.batch_size = count
            pipeline.predict([np.full((*_WARM_UP_SIZE, 3), 114, np.uint8)] * count, ["warm-up"] * count)

    def _opened(self, ready: Future[None]) -> None:
        self.failure = ready.exception()
        if self.failure is not None:
            self.state = "failed"
            log("model_failed", logging.ERROR, error=str(self.failure))
        elif self.state == "loading":
            self.state = "ready"
            self.metrics.ready.set(1)
            log("ready", model=self.model.name, version=self.model.version, tasks=list(self.model.tasks))
