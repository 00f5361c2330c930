"""Files and folders that must be whole: digests, and replacing a folder at once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path


def sha256(path: Path) -> str:
    """Returns the file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()  # hashlib.file_digest is newer than Python 3.10
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def replace_folder(fresh: Path, folder: Path) -> None:
    """Renames ``fresh`` to ``folder``, which is at any moment the old one, absent or the new one, always whole."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
