"""What Linux, macOS and Windows do differently, in one place; each function says what is missing where."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def peak_memory_mib() -> float:
    """The most memory that this process ever held, in MiB; NaN on Windows, which has no ``resource``."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def leave_process_group() -> None:
    """Lets this process, started by another, ignore signals sent to the whole group, as Ctrl-C in a terminal is.

    Windows has no such groups: Ctrl-C reaches every process there, and a run may end without a last checkpoint.
    """
    if hasattr(os, "setsid"):
        os.setsid()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is in here with the same ``path``, which is created.

    Windows has no ``fcntl``: processes do not wait there, so start several of them only when the file is there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
