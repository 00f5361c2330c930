"""Dynamic batching: callers on many threads, one thread that owns the network and runs inputs of one shape together.

:class:`Batcher` sits between :class:`ppmtl.predict.pipeline.Pipeline` and the backend, so pre- and post-processing stay the
pipeline's and run beside the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ppmtl.predict.pipeline import Backend

Raw = Mapping[str, Mapping[str, np.ndarray]]
Key = tuple[tuple[int, ...], tuple[str, ...]]


class Dropped(Exception):
    """The work was given up before it was done: its request timed out, its client left, or the service stopped."""


@dataclass
class Ticket:
    """What a picture's work shares with whoever waits for it.

    Attributes:
        cancelled: set to give the work up.
        waited_s: how long its inputs waited for their turn.
        inputs_left: how many inputs it will still bring; others are kept waiting for those only.
    """

    cancelled: threading.Event = field(default_factory=threading.Event)
    waited_s: float = 0.0
    inputs_left: int = 0

    def check(self) -> None:
        """Raises Dropped if the work was given up."""
        if self.cancelled.is_set():
            raise Dropped


@dataclass
class _Item:
    images: np.ndarray
    tasks: tuple[str, ...]
    ticket: Ticket
    entered: float = field(default_factory=time.perf_counter)
    raw: Future[Raw] = field(default_factory=Future)

    @property
    def key(self) -> Key:
        return self.images.shape[1:], self.tasks


class Batcher:
    """Runs inputs that share shape and tasks together.

    Args:
        open_backend: called once, on the thread that will run the network.
        max_batch: inputs per run.
        max_delay_s: how long the first input of a run waits for others. Only inputs that are known to be on their way
            are waited for (see :meth:`member`); while a run is on, inputs collect by themselves.
        on_batch: told the size of every run.
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        *,
        max_batch: int,
        max_delay_s: float,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._open, self._max_batch, self._max_delay, self._on_batch = open_backend, max_batch, max_delay_s, on_batch
        self._condition = threading.Condition()
        self._items: list[_Item] = []
        self._coming: set[int] = set()  # tickets whose next input is on its way
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, warm_up: Callable[[Backend], None]) -> Future[None]:
        """Returns a future that is done once the backend is open and ``warm_up`` has run it; it carries their errors."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, args=(warm_up, ready), name="network", daemon=True)
        self._thread.start()
        return ready

    @property
    def alive(self) -> bool:
        """Returns whether the network's thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @contextmanager
    def member(self, ticket: Ticket) -> Iterator[None]:
        """Announces, until the block ends, that ``ticket.inputs_left`` inputs will be brought one after the other."""
        self._coming_soon(ticket, ticket.inputs_left > 0)
        try:
            yield
        finally:
            self._coming_soon(ticket, False)

    def run(self, images: np.ndarray, tasks: tuple[str, ...], ticket: Ticket) -> Raw:
        """Returns the raw arrays of ``images``; blocks. To be called by a :meth:`member`.

        Raises:
            Dropped: if the ticket was cancelled before the run began, or the batcher was closed.
        """
        item = _Item(images, tasks, ticket)
        with self._condition:
            if self._closed:
                raise Dropped
            self._items.append(item)
        ticket.inputs_left -= 1
        self._coming_soon(ticket, False)
        try:
            return item.raw.result()
        finally:
            self._coming_soon(ticket, ticket.inputs_left > 0)

    def close(self) -> None:
        """Ends the thread after its present run; whoever still waits gets Dropped."""
        with self._condition:
            self._closed = True
            left, self._items = self._items, []
            self._condition.notify_all()
        for item in left:
            item.raw.set_exception(Dropped())
        if self._thread is not None:
            self._thread.join()

    def _coming_soon(self, ticket: Ticket, coming: bool) -> None:
        with self._condition:
            (self._coming.add if coming else self._coming.discard)(id(ticket))
            self._condition.notify_all()

    def _main(self, warm_up: Callable[[Backend], None], ready: Future[None]) -> None:
        try:
            backend = self._open()
            warm_up(backend)
        except Exception as error:  # truly every error: the thread that started the service reports it
            ready.set_exception(error)
            return
        ready.set_result(None)
        while batch := self._next():
            self._execute(backend, batch)

    def _next(self) -> list[_Item]:
        """Returns the inputs to run now, oldest first; empty when closed."""
        with self._condition:
            while True:
                self._condition.wait_for(lambda: self._items or self._closed)
                if self._closed:
                    return []
                self._wait_for_company(self._items[0])
                batch = self._take()
                if batch:
                    return batch

    def _wait_for_company(self, first: _Item) -> None:
        limit = first.entered + self._max_delay
        while self._coming and not self._closed and self._rows(first.key) < self._max_batch:
            left = limit - time.perf_counter()
            if left <= 0:
                return
            self._condition.wait(left)

    def _rows(self, key: Key) -> int:
        return sum(len(item.images) for item in self._items if item.key == key)

    def _take(self) -> list[_Item]:
        """Returns what runs with the oldest input that is still wanted, taken out of the queue."""
        dropped = [item for item in self._items if item.ticket.cancelled.is_set()]
        waiting = [item for item in self._items if not item.ticket.cancelled.is_set()]
        for item in dropped:
            item.raw.set_exception(Dropped())
        batch: list[_Item] = []
        rows = 0
        for item in waiting:
            if item.key == waiting[0].key and (not batch or rows + len(item.images) <= self._max_batch):
                batch.append(item)
                rows += len(item.images)
        taken = {id(item) for item in batch}
        self._items = [item for item in waiting if id(item) not in taken]
        return batch

    def _execute(self, backend: Backend, batch: list[_Item]) -> None:
        now = time.perf_counter()
        for item in batch:
            item.ticket.waited_s += now - item.entered
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([item.images for item in batch])
            self._on_batch(len(images))
            raw = backend(images, batch[0].tasks)
        except Exception as error:  # truly every error, lack of memory too: the callers get it, this thread lives on
            for item in batch:
                item.raw.set_exception(error)
            return
        start = 0
        for item in batch:
            rows = slice(start, start + len(item.images))
            item.raw.set_result({task: {k: v[rows] for k, v in arrays.items()} for task, arrays in raw.items()})
            start = rows.stop
