"""Reading text and JSON files, and checking that listed files exist; every error names the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ppmtl.data.findings import FileError, Finding, refuse


def require_files(listed_in: Path, files: Iterable[Path]) -> None:
    """Refuses a list with files that do not exist, naming every one."""
    missing = [
        Finding(str(file), f"no such file; {listed_in.name} lists it", kind="missing_image")
        for file in files
        if not file.is_file()
    ]
    if missing:
        problem = f"{len(missing)} files are listed but missing; restore them, or remove their entries"
        refuse(listed_in, problem, missing)


def read_text(path: Path) -> str:
    """The file's UTF-8 text without a byte order mark; ValueError naming the path if it has none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check the path and its permissions"
        raise FileError(path, problem, "unreadable_list") from error
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        raise FileError(path, problem, "not_utf8") from error


def read_json(path: Path) -> Any:
    """The parsed JSON file; ValueError naming the path and the place if it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON ({error}); it may be cut off: export it again"
        raise FileError(path, problem, "broken_json") from error
