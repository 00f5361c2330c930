"""The batcher alone, with a network made by hand."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from ppmtl_service.batching import Batcher, Dropped, Ticket
from serving_fakes import wait_until


class Mean:
    """Raw "x" is each input's mean; ``gate`` holds runs back."""

    def __init__(self):
        self.runs, self.gate, self.threads, self.busy = [], threading.Event(), set(), False
        self.gate.set()

    def __call__(self, images, tasks):
        self.busy = True
        self.gate.wait(10)
        self.threads.add(threading.get_ident())
        self.runs.append((len(images), images.shape[1:], tasks))
        if images.max() == 255:
            raise RuntimeError("boom")
        return {name: {"x": images.mean(axis=(1, 2, 3))} for name in tasks}


@contextmanager
def batcher(network, max_batch=4, max_delay_s=0.0):
    result = Batcher(lambda: network, max_batch, max_delay_s, lambda _: None)
    result.start()
    result.ready.result(10)
    try:
        yield result
    finally:
        network.gate.set()
        result.close()


def ask(batcher, value, size=(4, 6), tasks=("a",), ticket=None):
    found = batcher.run(np.full((1, *size, 3), value, np.uint8), tasks, ticket or Ticket())
    return {name: float(raw["x"][0]) for name, raw in found.items()}


def held(batcher, network, pool, jobs):
    """Futures of ``jobs`` (keyword arguments of ask) that all wait while one run is held back."""
    network.gate.clear()
    first = pool.submit(ask, batcher, 1)
    wait_until(lambda: network.busy)
    futures = []
    for job in jobs:
        futures.append(pool.submit(ask, batcher, **job))
        wait_until(lambda: len(batcher._items) == len(futures))
    return first, futures


def test_inputs_that_wait_run_together_up_to_max_batch_and_get_their_own_answers():
    network = Mean()
    with batcher(network, max_batch=3) as b, ThreadPoolExecutor(8) as pool:
        first, futures = held(b, network, pool, [{"value": v} for v in (10, 20, 30, 40)])
        network.gate.set()
        assert first.result(10) == {"a": 1}
        assert [f.result(10) for f in futures] == [{"a": 10}, {"a": 20}, {"a": 30}, {"a": 40}]
    assert [count for count, *_ in network.runs] == [1, 3, 1]
    assert len(network.threads) == 1


def test_only_equal_sizes_and_tasks_share_a_run():
    network = Mean()
    jobs = [
        {"value": 10},
        {"value": 20, "size": (8, 6)},
        {"value": 30, "tasks": ("a", "b")},
        {"value": 40},
    ]
    with batcher(network) as b, ThreadPoolExecutor(8) as pool:
        _, futures = held(b, network, pool, jobs)
        network.gate.set()
        assert [f.result(10) for f in futures] == [{"a": 10}, {"a": 20}, {"a": 30, "b": 30}, {"a": 40}]
    assert [(count, size[0], tasks) for count, size, tasks in network.runs[1:]] == [
        (2, 4, ("a",)),
        (1, 8, ("a",)),
        (1, 4, ("a", "b")),
    ]


def test_work_given_up_before_its_turn_never_runs():
    network, ticket = Mean(), Ticket()
    with batcher(network) as b, ThreadPoolExecutor(8) as pool:
        _, (dropped, kept) = held(b, network, pool, [{"value": 10, "ticket": ticket}, {"value": 20}])
        ticket.cancelled.set()
        network.gate.set()
        assert kept.result(10) == {"a": 20}
        with pytest.raises(Dropped):
            dropped.result(10)
    assert [count for count, *_ in network.runs] == [1, 1]


def test_the_thread_lives_on_after_the_network_failed():
    network = Mean()
    with batcher(network) as b:
        with pytest.raises(RuntimeError, match="boom"):
            ask(b, 255)
        assert ask(b, 7) == {"a": 7}


def test_the_first_input_waits_for_others_but_no_longer_than_max_delay():
    network = Mean()
    with batcher(network, max_batch=2, max_delay_s=5.0) as b, ThreadPoolExecutor(2) as pool:
        started = time.perf_counter()
        assert [f.result(10) for f in [pool.submit(ask, b, v) for v in (1, 2)]] == [{"a": 1}, {"a": 2}]
        assert time.perf_counter() - started < 4
    with batcher(network, max_delay_s=0.05) as b:
        started = time.perf_counter()
        ask(b, 1)
        assert 0.05 <= time.perf_counter() - started < 3
    assert [count for count, *_ in network.runs] == [2, 1]


def test_closing_frees_whoever_waits():
    network = Mean()
    with ThreadPoolExecutor(8) as pool:
        with batcher(network) as b:
            first, (waiting,) = held(b, network, pool, [{"value": 10}])
            closing = pool.submit(b.close)
            with pytest.raises(Dropped):
                waiting.result(10)
            network.gate.set()
            closing.result(10)
            assert first.result(10) == {"a": 1}
        with pytest.raises(Dropped):
            ask(b, 1)


def test_an_error_on_opening_is_told_and_ends_the_thread():
    def fail():
        raise ValueError("damaged")

    b = Batcher(fail, 1, 0, lambda _: None)
    b.start()
    with pytest.raises(ValueError, match="damaged"):
        b.ready.result(10)
    wait_until(lambda: not b.alive())
