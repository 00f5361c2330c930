"""Files and folders that must be whole: digests, and replacing a folder at once."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path


def sha256(path: Path) -> str:
    """Returns the file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()  # hashlib.file_digest is newer than Python 3.10
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Forces a file, or a folder's list of names, onto the disk.

    Raises:
        OSError: if the disk could not take it.
    """
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush folders and say so this way
            raise
    finally:
        os.close(handle)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Renames ``fresh``, whose files are flushed, to ``folder``, which may exist.

    At any moment ``folder`` is the old one, the new one, or absent with the old one whole in ``.<folder>.old``.
    """
    old = folder.with_name(f".{folder.name}.old")
    remove_folder(old)
    replaced = os.path.lexists(folder)
    if replaced:
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if replaced:
            old.rename(folder)
        raise
    flush(folder.parent)
    remove_folder(old)


def remove_folder(folder: Path) -> None:
    """Removes a folder, or a link to one, if it is there; what cannot be removed stays."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
