"""Spawns CPU processes; forwards signals to them and the first error from them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from ppmtl.data.workers import end_with_parent
from ppmtl.predict.processes import JobError
from ppmtl.system import leave_process_group
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
        JobError: one of them failed; the message names its rank.
        SystemExit: they ended that way.
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

    messages = multiprocessing.get_context("spawn").SimpleQueue()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your model will be trained under CPUONLY mode")
        # kept to the end: its queues vanish with it, and the processes then fail to start
        job = spawn(_run, args=(function, arguments, messages), nprocs=nprocs, join=False, backend="gloo")

    def pass_on(number: int, _frame: object) -> None:
        for process in job.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        codes = _exit_codes(job.processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _raise_the_cause(codes, None if messages.empty() else messages.get())


def _run(function: Callable[..., object], arguments: Sequence[Any], messages: Any) -> None:
    """Runs in each of several processes; one that fails sends its message."""
    leave_process_group()  # the terminal's Ctrl-C reaches only the process that started this one, which passes it on, once
    end_with_parent()
    try:
        with guard():
            function(*arguments)
    except JobError as error:
        messages.put(str(error))
        sys.exit(1)


def _exit_codes(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Waits for the processes; once one has failed, the others get some seconds. None for those killed then."""
    deadline = float("inf")
    while alive := [process for process in processes if process.is_alive()]:
        wait([process.sentinel for process in alive], timeout=0.2)
        codes = [process.exitcode for process in processes]
        if any(codes):
            deadline = min(deadline, time.monotonic() + _SECONDS_TO_END)
        if time.monotonic() > deadline:
            for process in alive:
                process.kill()
            return codes
    return [process.exitcode for process in processes]


def _raise_the_cause(codes: Sequence[int | None], message: str | None) -> None:
    """Raises what ended the job, if anything did: a failure that explains itself before a death."""
    killed = [(rank, -code) for rank, code in enumerate(codes) if code is not None and code < 0]
    if message is None and killed:
        rank, number = killed[-1]
        why = "; perhaps the system killed it for lack of memory" if number == getattr(signal, "SIGKILL", None) else ""
        message = f"rank {rank} of {len(codes)} ended by {signal.Signals(number).name}{why}"
    if message is not None:
        raise JobError(message)
    if code := max(code or 0 for code in codes):
        sys.exit(code)
