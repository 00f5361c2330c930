"""Reasons to end a run before its schedule: a signal, or a metric that no longer becomes better."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

_CAUGHT = (signal.SIGTERM, signal.SIGINT)
_SAME_SECONDS = 2.0  # Paddle's launcher sends SIGTERM up to three times within .6 s, and means it once


class StopSignal:
    """Notes SIGTERM and Ctrl-C instead of dying of them, so that the loop can finish its step and save.

    Another one seconds later has its usual effect: a loop that hangs can still be stopped by hand. Outside the main
    thread, where Python does not deliver signals, it does nothing.

    Attributes:
        number: of the signal that came; 0 = none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > _SAME_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}


def is_better(value: float, best: float, min_delta: float = 0.0) -> bool:
    """Returns whether a metric (higher is better) beats the best so far by more than ``min_delta``; NaN never does."""
    return value > best + min_delta
