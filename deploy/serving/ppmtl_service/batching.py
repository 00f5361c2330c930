"""Dynamic batching: callers on many threads, one thread that owns the network and runs inputs of one shape together.

:class:`Batcher` sits between :class:`ppmtl.predict.pipeline.Pipeline` and the backend, so pre- and post-processing stay the
pipeline's and run beside the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ppmtl.predict.pipeline import Backend

Raw = Mapping[str, Mapping[str, np.ndarray]]


class Dropped(Exception):
    """The work was given up before it was done: its request timed out, its client left, or the service stopped."""


@dataclass
class Ticket:
    """One image's work: ``cancelled`` is set to give it up, ``waited_s`` is how long its inputs waited for the network."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    waited_s: float = 0.0


@dataclass
class _Item:
    image: np.ndarray
    tasks: tuple[str, ...]
    ticket: Ticket
    entered: float = field(default_factory=time.perf_counter)
    raw: Future[Raw] = field(default_factory=Future)

    def fits(self, other: _Item) -> bool:
        return self.image.shape == other.image.shape and self.tasks == other.tasks


class Batcher:
    """Runs inputs that share shape and tasks together.

    Args:
        open_backend: called once, on the thread that will run the network; returns it warm.
        max_batch: inputs per run.
        max_delay_s: how long the first input of a run waits for others. While a run is on, inputs collect by themselves.
        on_batch: told the size of every run.

    Attributes:
        ready: done once the backend is open; carries the error if that failed.
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        max_batch: int,
        max_delay_s: float,
        on_batch: Callable[[int], None],
    ) -> None:
        self._open, self._max_batch, self._max_delay, self._on_batch = open_backend, max_batch, max_delay_s, on_batch
        self._condition = threading.Condition()
        self._items: list[_Item] = []
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="network", daemon=True)
        self.ready: Future[None] = Future()

    def start(self) -> None:
        """Starts the thread, which opens the backend."""
        self._thread.start()

    def alive(self) -> bool:
        """Whether the network's thread runs."""
        return self._thread.is_alive()

    def run(self, image: np.ndarray, tasks: tuple[str, ...], ticket: Ticket) -> Raw:
        """The raw arrays of one input (1, H, W, 3); raises Dropped if the ticket was cancelled or the batcher closed before."""
        item = _Item(image, tasks, ticket)
        with self._condition:
            if self._closed:
                raise Dropped
            self._items.append(item)
            self._condition.notify_all()
        return item.raw.result()

    def close(self) -> None:
        """Ends the thread after its present run; whoever still waits gets Dropped."""
        with self._condition:
            self._closed = True
            left, self._items = self._items, []
            self._condition.notify_all()
        for item in left:
            item.raw.set_exception(Dropped())
        self._thread.join()

    def _main(self) -> None:
        try:
            backend = self._open()
        except Exception as error:  # truly every error: the thread that started the service reports it
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while batch := self._next():
            self._execute(backend, batch)

    def _next(self) -> list[_Item]:
        """Waits for inputs and takes those to run now, oldest first; empty when closed."""
        with self._condition:
            while not self._closed:
                self._condition.wait_for(lambda: self._items or self._closed)
                if self._items:
                    left = self._items[0].entered + self._max_delay - time.perf_counter()
                    self._condition.wait_for(self._enough, max(0.0, left))
                if batch := self._take():
                    return batch
            return []

    def _enough(self) -> bool:
        return self._closed or sum(item.fits(self._items[0]) for item in self._items) >= self._max_batch

    def _take(self) -> list[_Item]:
        """Takes out the oldest input that is still wanted and what fits it; those given up get Dropped."""
        batch: list[_Item] = []
        rest: list[_Item] = []
        for item in self._items:
            if item.ticket.cancelled.is_set():
                item.raw.set_exception(Dropped())
            elif not batch or (len(batch) < self._max_batch and item.fits(batch[0])):
                batch.append(item)
            else:
                rest.append(item)
        self._items = rest
        return batch

    def _execute(self, backend: Backend, batch: list[_Item]) -> None:
        now = time.perf_counter()
        for item in batch:
            item.ticket.waited_s += now - item.entered
        self._on_batch(len(batch))
        try:
            raw = backend(np.concatenate([item.image for item in batch]), batch[0].tasks)
        except Exception as error:  # truly every error, lack of memory too: the callers get it, this thread lives on
            for item in batch:
                item.raw.set_exception(error)
            return
        for row, item in enumerate(batch):
            item.raw.set_result(
                {task: {k: v[row : row + 1] for k, v in arrays.items()} for task, arrays in raw.items()}
            )
