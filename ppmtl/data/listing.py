"""Small helpers that readers share: where paths start, and reading text and JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ppmtl.data.findings import Finding


def under(root: str | Path, path: str) -> Path:
    """Returns ``path`` as seen from ``root``; an absolute ``path`` stays as it is."""
    return Path(root) / path


def missing_files(files: Iterable[Path]) -> list[Finding]:
    """A finding for every file that does not exist."""
    return [Finding(str(file), "no such file") for file in files if not file.is_file()]


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
