"""Starts several processes on this machine's CPU and answers for them: signals, exit code, one message if one fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from ppmtl.data.workers import end_with_parent
from ppmtl.predict.processes import JobError, Processes
from ppmtl.train.distributed import guard

_SECONDS_TO_END = 7.0  # for the others once one has failed; their own watch takes 5


def launch(function: Callable[..., object], arguments: Sequence[Any], nprocs: int = 1) -> None:
    """Runs ``function(*arguments)`` in this process, or in ``nprocs`` ones on this machine's CPU until all have ended.

    Ctrl-C and SIGTERM are passed on to them, and they end if this process is killed.

    Args:
        function: at the top level of a module; calls ``distributed.start`` itself.
        arguments: picklable.
        nprocs: 1 = here, alone or as one of the processes that Paddle's launcher started.

    Raises:
        JobError: one of them failed; the message is its own and names its rank.
        SystemExit: one of them ended that way; with the highest exit code.
        ValueError: ``nprocs`` > 1 under Paddle's launcher.
    """
    if nprocs == 1:
        with guard():
            function(*arguments)
        return
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        raise ValueError("--nprocs starts processes itself; leave it out under python -m paddle.distributed.launch")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before they start: each has one core, not all of them
    # Python cleans up what an ended process leaves behind, and would remark on it below the message that matters
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")

    from paddle.distributed import spawn

    outcomes = multiprocessing.get_context("spawn").SimpleQueue()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your model will be trained under CPUONLY mode")
        # kept to the end: its queues vanish with it, and the processes then fail to start
        job = spawn(_run, args=(function, arguments, outcomes), nprocs=nprocs, join=False, backend="gloo")
    with _signals_go_to(job.processes):
        told, silent = _wait(job.processes, outcomes)
    _raise_the_cause(told, silent, Processes(count=nprocs))


@dataclass(frozen=True)
class _Outcome:
    """How a process ended: with an exit code, and a message if it was it that failed."""

    code: int
    message: str = ""


def _run(function: Callable[..., object], arguments: Sequence[Any], outcomes: Any) -> None:
    """Runs one of several processes, and tells the one that started it how it ended."""
    os.setsid()  # the terminal's Ctrl-C reaches only the process that started this one, which passes it on, once
    end_with_parent()
    outcome = _Outcome(0)
    try:
        with guard():
            function(*arguments)
    except JobError as error:
        outcome = _Outcome(1, str(error))
    except SystemExit as end:
        outcome = _Outcome(end.code if isinstance(end.code, int) else int(end.code is not None))
    outcomes.put((int(os.environ["PADDLE_TRAINER_ID"]), outcome))
    sys.exit(outcome.code)


@contextmanager
def _signals_go_to(processes: Sequence[BaseProcess]) -> Iterator[None]:
    def pass_on(number: int, _frame: object) -> None:
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[BaseProcess], outcomes: Any) -> tuple[dict[int, _Outcome], dict[int, int]]:
    """Returns {rank: what it told} and {rank: exit code} of those that ended without a word, in the order of their end.

    Once one has failed, the others get some seconds; those that are left then are killed and in neither.
    """
    told: dict[int, _Outcome] = {}
    silent: dict[int, int] = {}
    deadline = float("inf")
    while alive := [process for process in processes if process.is_alive()]:
        wait([process.sentinel for process in alive], timeout=0.2)
        codes = {rank: process.exitcode for rank, process in enumerate(processes)}
        while not outcomes.empty():
            rank, outcome = outcomes.get()
            told[rank] = outcome
        silent |= {rank: code for rank, code in codes.items() if code is not None and rank not in told}
        if silent or any(outcome.message for outcome in told.values()):
            deadline = min(deadline, time.monotonic() + _SECONDS_TO_END)
        if time.monotonic() > deadline:
            for process in alive:
                process.kill()
                process.join()
    return told, silent


def _raise_the_cause(told: dict[int, _Outcome], silent: dict[int, int], processes: Processes) -> None:
    """Raises what ended the job, if anything did: a failure that explains itself before a death."""
    messages = [outcome.message for outcome in told.values() if outcome.message]
    for rank, code in silent.items():
        if code < 0:
            why = "; perhaps the system killed it for lack of memory" if -code == signal.SIGKILL else ""
            messages.append(f"{processes.name(rank)} ended by {signal.Signals(-code).name}{why}")
    messages += [f"{processes.name(rank)} ended with exit code {code}" for rank, code in silent.items() if code > 0]
    if messages:
        raise JobError(messages[0])
    code = max((outcome.code for outcome in told.values()), default=0)
    if code:
        sys.exit(code)
