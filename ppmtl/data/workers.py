"""What every helper process does first."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Makes this process end when the one that started it does, also by kill -9.

    Nobody would watch it any more, and a run that is started again would share its files and its memory. Paddle's data
    workers notice a dead parent, but then wait for ever to hand over a batch that nobody takes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
