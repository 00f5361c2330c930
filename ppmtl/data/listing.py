"""Reading text and JSON files, and checking that listed files exist; every error names the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ppmtl.data.findings import DataError, Finding


def require_files(listed_in: Path, files: Iterable[Path]) -> None:
    """Raises DataError naming every one of ``files`` that does not exist."""
    missing = [Finding(str(file), "no such file") for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{listed_in}: {len(missing)} files are listed but missing; restore them, or remove their entries", missing
        )


def read_text(path: Path) -> str:
    """The file's UTF-8 text without a byte order mark; ValueError naming the path if it has none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """The parsed JSON file; ValueError naming the path and the place if it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); it may be cut off: export it again") from error
