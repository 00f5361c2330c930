"""Files and folders that appear complete or not at all: digests, the one atomic write, replacing a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; when the block ends without an error, it is flushed and renamed.

    At any moment ``path`` is absent, the old file or the complete new one.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits."""
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
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush folders and say so this way
            raise
    finally:
        os.close(handle)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Renames ``fresh``, whose files are flushed, to ``folder``, which may exist.

    At any moment ``folder`` is the old one, the new one, or absent, while the old one is ``.<folder>.old``.
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
