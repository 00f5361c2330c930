"""Downloads a file once: into a cache, resuming a broken transfer, checked by its digest when one is given."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

import ppmtl
from ppmtl.files import sha256

_ATTEMPTS = 4
_PAUSE_SECONDS = 2.0  # before the second attempt; grows with each
_TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20


def is_url(text: str) -> bool:
    """Returns whether a text is a web address rather than a path."""
    return text.startswith(("http://", "https://"))


def cache_dir() -> Path:
    """Returns where downloads are kept: $PPMTL_CACHE, or ~/.cache/ppmtl."""
    given = os.environ.get("PPMTL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "ppmtl"


def fetch(url: str) -> Path:
    """Returns the file of a URL, from the cache if it is there.

    Args:
        url: http(s); ``#sha256=<64 hex digits>`` at its end is what the file must have, cached or not.

    Raises:
        ValueError: if it cannot be had (the message says where to put it by hand), or its digest is another.
    """
    address, _, fragment = url.partition("#")
    digest = _wanted_digest(url, fragment)
    target = _cached_path(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _locked(target.with_name(f"{target.name}.lock")):
        if target.is_file():
            _check_digest(target, digest, url, f"delete {target} to download it again")
            return target
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _transfer(address, part)
                break
            except (OSError, http.client.HTTPException) as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if refused or attempt == _ATTEMPTS:
                    raise ValueError(_unreachable(address, target, part, error)) from error
                time.sleep(_PAUSE_SECONDS * attempt)
        try:
            _check_digest(part, digest, url, "nothing was kept; check the address and the digest")
        except ValueError:
            part.unlink()
            raise
        os.replace(part, target)
    return target


def _wanted_digest(url: str, fragment: str) -> str | None:
    if not fragment:
        return None
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if found is None:
        raise ValueError(f"{url}: what follows '#' must be sha256=<64 hex digits>, got {fragment!r}")
    return found[1].lower()


def _cached_path(address: str) -> Path:
    """Returns <cache>/<host>/<path>, which a person can also fill by hand; two hosts' model.safetensors stay apart."""
    parts = urlsplit(address)
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".", "..")]
    if parts.query:  # part of what is asked for, so part of the name
        names[-1:] = [f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}_{(names or ['file'])[-1]}"]
    if not names or not parts.hostname:
        raise ValueError(f"{address}: names no file")
    return cache_dir().joinpath(parts.netloc.rpartition("@")[2].replace(":", "_"), *names)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process at a time download a file: the others of a job then find it in the cache."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _transfer(address: str, part: Path) -> None:
    """Appends what is missing to ``part``.

    Raises:
        OSError, http.client.HTTPException: if the transfer breaks; ``part`` keeps what came.
    """
    stamp = part.with_name(f"{part.name}.etag")  # of which version of the file the part is
    have = part.stat().st_size if part.is_file() and stamp.is_file() else 0
    headers = {"User-Agent": f"ppmtl/{ppmtl.__version__}", "Accept-Encoding": "identity"}
    if have:
        # If-Range: a server whose file changed since sends the whole new one instead of its tail
        headers |= {"Range": f"bytes={have}-", "If-Range": stamp.read_text(encoding="utf-8")}
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing after what we have, or a part longer than the file: start anew
            part.unlink()
            raise OSError(f"the server has no byte {have}; starting anew") from error
        raise
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if validator and not validator.startswith("W/"):  # a weak tag may not be used to resume
            stamp.write_text(validator, encoding="utf-8")
        else:
            stamp.unlink(missing_ok=True)
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
        ):
            while block := response.read(_CHUNK):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        raise ConnectionError(f"the transfer ended after {size} of {total} bytes")
    stamp.unlink(missing_ok=True)


def _check_digest(path: Path, wanted: str | None, url: str, mend: str) -> None:
    if wanted is None:
        return
    digest = sha256(path)
    if digest != wanted:
        raise ValueError(f"{url}: the file's SHA-256 is {digest}, not the one asked for; {mend}")


def _unreachable(address: str, target: Path, part: Path, error: Exception) -> str:
    kept = f" {part.stat().st_size} bytes are kept and the next try continues there." if part.is_file() else ""
    return (
        f"{address}: cannot be downloaded ({error}).{kept}\n"
        f"Without a network: download it on another machine and put it at\n  {target}\n"
        "(PPMTL_CACHE changes the folder), or give its path instead of the address"
    )
