"""One model at work: who is admitted, which thread does what, and when work is given up."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

import numpy as np

from ppmtl.data.images import decode_image
from ppmtl.predict.pipeline import Backend, Pipeline
from ppmtl.structures import Size
from ppmtl_service.answers import encode_result
from ppmtl_service.batching import Batcher, Dropped, Ticket
from ppmtl_service.errors import ServiceError
from ppmtl_service.intake import Upload, image_size
from ppmtl_service.logs import log
from ppmtl_service.metrics import Metrics
from ppmtl_service.model import Model
from ppmtl_service.options import Options
from ppmtl_service.schema import Wanted
from ppmtl_service.uploads import Uploads

Answer = tuple[bytes, dict[str, float]]  # one image's JSON, {stage: seconds}
_WARM_UP_SIZE = (720, 1280)  # only for tasks that take images at their own size


class PixelBudget:
    """Keeps the images that are worked on at one moment below ``limit`` pixels in all; first come, first served."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._turn, self._freed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for ``pixels``, and keeps it during the block. An image alone always has room."""
        with self._turn, self._freed:  # the turn keeps small images from passing a large one for ever
            self._freed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._freed:
                self._held -= pixels
                self._freed.notify_all()


class Service:
    """Predicts images for many clients at once; begins to open its model at :meth:`start`."""

    def __init__(self, model: Model, options: Options) -> None:
        self.model, self.options, self.metrics = model, options, Metrics()
        self.uploads = Uploads(options)
        self.admitted = 0  # images waiting or running
        self._lock = threading.Lock()
        self._batch = model.batch or options.max_batch
        delay, observe = options.max_delay_ms / 1000, self.metrics.batch_size.observe
        self._batcher = Batcher(self._open, self._batch, delay, observe)
        self._pool = ThreadPoolExecutor(options.workers, "image")
        self._pixels = PixelBudget(options.max_pixels)

    def start(self) -> None:
        """Begins to open the model, on a thread of its own."""
        self._batcher.ready.add_done_callback(self._report)
        self._batcher.start()

    def close(self) -> None:
        """Ends all threads; admitted work that has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    @property
    def failure(self) -> BaseException | None:
        """Why the model could not be opened."""
        ready = self._batcher.ready
        return ready.exception() if ready.done() else None

    @property
    def state(self) -> Literal["loading", "ready", "failed"]:
        """Whether images can be taken."""
        if not self._batcher.ready.done():
            return "loading"
        return "ready" if self.failure is None and self._batcher.alive() else "failed"

    def require_ready(self) -> None:
        """Raises ServiceError 503 unless images can be taken."""
        if self.state != "ready":
            message = f"the service is {self.state}; try again later"
            raise ServiceError(503, f"not_ready_{self.state}", message, {"Retry-After": "5"})

    def require_room(self, images: int) -> None:
        """Raises ServiceError 429 if so many more images do not fit into the queue."""
        if self.admitted + images > self.options.queue_size:
            taken = f"{self.admitted} of {self.options.queue_size} places are taken, {images} wanted"
            raise ServiceError(429, "queue_full", f"{taken}; try again later", {"Retry-After": "1"})

    async def predict(self, uploads: Sequence[Upload], wanted: Wanted) -> tuple[list[bytes], dict[str, float]]:
        """Each image's result as JSON, and the seconds of each stage, of the image that took longest there.

        Cancelling it gives up what has not begun.

        Raises:
            ServiceError: 413, 415 or 422 for a bad image, 429 if the queue is full, 503 if the service stops.
        """
        limits = (self.options.max_pixels_tta if wanted.tta else self.options.max_pixels), self.options.max_side
        sizes = [await asyncio.to_thread(image_size, upload, *limits) for upload in uploads]
        self.require_room(len(uploads))
        tickets = [Ticket() for _ in uploads]
        work = list(map(self._submit, uploads, sizes, [wanted] * len(uploads), tickets))
        try:
            answers = await asyncio.gather(*map(asyncio.wrap_future, work))
        except Dropped as error:
            raise ServiceError(503, "not_ready_stopping", "the service stops; try again later") from error
        finally:
            for future, ticket, upload in zip(work, tickets, uploads, strict=True):
                ticket.cancelled.set()
                future.cancel()
                upload.data = b""  # the pool keeps what has not begun until its turn comes
        longest = {stage: max(seconds[stage] for _, seconds in answers) for stage in answers[0][1]}
        return [result for result, _ in answers], longest

    def _submit(self, upload: Upload, size: Size, wanted: Wanted, ticket: Ticket) -> Future[Answer]:
        self._count(+1)
        future = self._pool.submit(self._work, upload, size, wanted, ticket, time.perf_counter())
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, by: int) -> None:
        with self._lock:
            self.admitted += by
            self.metrics.queue_depth.set(self.admitted)

    def _work(self, upload: Upload, size: Size, wanted: Wanted, ticket: Ticket, admitted: float) -> Answer:
        """One image's result as JSON, and the seconds of each stage; runs on a thread of the pool."""
        with self._pixels.hold(size[0] * size[1]):
            started = time.perf_counter()
            if ticket.cancelled.is_set():
                raise Dropped
            try:
                image = decode_image(upload.data, upload.name)
            except ValueError as error:
                raise ServiceError(422, "broken_image", str(error)) from error
            upload.data = b""
            decoded = time.perf_counter()
            pipeline = Pipeline(
                {name: task for name, task in self.model.tasks.items() if name in wanted.tasks.split(",")},
                lambda images, tasks: self._batcher.run(images, tasks, ticket),
                augment=wanted.tta,
                shared_size=self.model.shared_size,
            )
            predictions = pipeline.predict([image], [upload.name])[0]
            predicted = time.perf_counter()
            result = encode_result(upload.name, image.shape[:2], predictions, pipeline.tasks, wanted)
        seconds = {
            "decode": decoded - started,
            "queue": started - admitted + ticket.waited_s,
            "predict": predicted - decoded - ticket.waited_s,
            "encode": time.perf_counter() - predicted,
        }
        self.metrics.images.inc()
        for stage, value in seconds.items():
            self.metrics.stage_seconds.labels(stage).observe(value)
        return result, seconds

    def _open(self) -> Backend:
        """Opens the network and runs it on grey images, one and a full batch, so that no client pays for the first run."""
        backend = self.model.open_backend()
        for count in sorted({1, self._batch}):
            pipeline = Pipeline(self.model.tasks, backend, shared_size=self.model.shared_size, batch_size=count)
            pipeline.predict([np.full((*_WARM_UP_SIZE, 3), 114, np.uint8)] * count, ["warm-up"] * count)
        return backend

    def _report(self, ready: Future[None]) -> None:
        error = ready.exception()
        if error is not None:
            log("model_failed", logging.ERROR, error=str(error))
            return
        self.metrics.ready.set(1)
        log("ready", model=self.model.name, version=self.model.version, tasks=list(self.model.tasks))
