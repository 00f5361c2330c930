"""Small helpers that readers share: where paths start, text files, and long lists of complaints made short."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ppmtl.data.findings import shorten


def under(root: str | Path, path: str) -> Path:
    """Returns ``path`` as seen from ``root``; an absolute ``path`` stays as it is."""
    return Path(root) / path


def require_files(files: Iterable[Path], source: str | Path) -> None:
    """Checks that every file exists.

    Raises:
        ValueError: listing the first ten missing files and their number; ``source`` is who asks for them.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} files are listed but missing; restore them, or remove them from the list:\n"
            f"{shorten(missing)}"
        )


def read_text(path: Path) -> str:
    """Returns the file's UTF-8 text without a byte order mark.

    Raises:
        ValueError: if it cannot be read or is not UTF-8, naming the path.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """Returns the parsed JSON file.

    Raises:
        ValueError: if it cannot be read or is not JSON, naming the path and the place.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); it may be cut off: export it again") from error
