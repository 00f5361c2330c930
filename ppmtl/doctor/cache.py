"""What is known of files from earlier runs, so that only new and changed ones are read again."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ppmtl import __version__

_VERSION = f"{__version__}/1"  # raise the number when what is stored changes its meaning


def stamp(files: Iterable[str]) -> str:
    """Size and time of change of files; another stamp means that one of them has changed."""
    parts = []
    for file in files:
        try:
            status = os.stat(file)
            parts.append(f"{status.st_size}.{status.st_mtime_ns}")
        except OSError:
            parts.append("absent")
    return f"{_VERSION} {' '.join(parts)}"


class Cache:
    """A table {key: (stamp, JSON value)} in one SQLite file, which several processes may use.

    Args:
        path: None = <$PPMTL_CACHE or ~/.cache/ppmtl>/doctor.sqlite. What cannot be opened is not used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("PPMTL_CACHE") or Path.home() / ".cache" / "ppmtl") / "doctor.sqlite"

    def load(self, stamps: Mapping[str, str]) -> dict[str, Any]:
        """{key: value} of those of ``stamps`` {key: stamp} that are stored with this very stamp."""
        keys = list(stamps)
        found: dict[str, Any] = {}
        try:
            with closing(self._open()) as table:
                for start in range(0, len(keys), 500):  # SQLite limits the number of parameters
                    part = keys[start : start + 500]
                    query = f"SELECT key, stamp, value FROM facts WHERE key IN ({','.join('?' * len(part))})"
                    found |= {k: json.loads(v) for k, stamped, v in table.execute(query, part) if stamped == stamps[k]}
        except (OSError, sqlite3.Error, ValueError):  # a damaged or unreachable cache is only slow
            return {}
        return found

    def store(self, stamps: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """Stores {key: JSON value} with their stamps."""
        rows = [(key, stamps[key], json.dumps(value)) for key, value in values.items()]
        try:
            with closing(self._open()) as table, table:
                table.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
        except (OSError, sqlite3.Error):
            return

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        table = sqlite3.connect(self._path, timeout=20)
        table.execute("CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, stamp TEXT, value TEXT)")
        return table
