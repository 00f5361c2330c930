"""SIGTERM and Ctrl-C as a request to the training loop."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

_SAME_SECONDS = 2.0  # Paddle's launcher sends SIGTERM up to three times within .6 s, and means it once


class StopSignal:
    """Notes SIGTERM and Ctrl-C instead of dying of them, so that the loop can finish its step and save.

    Another one seconds later has its usual effect: a loop that hangs can still be stopped by hand. Outside the main
    thread, where Python does not deliver signals, it does nothing.

    Attributes:
        number: of the signal that came; 0 = none.
    """

    def __init__(self) -> None:
        self.number, self._since = 0, 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > _SAME_SECONDS:
            self.__exit__()
            signal.raise_signal(number)
