"""Downloads a file once, into $PPMTL_CACHE or ~/.cache/ppmtl, checked by its digest when one is given."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

import ppmtl
from ppmtl.files import atomic_write, sha256
from ppmtl.system import locked

_ATTEMPTS = 4
_PAUSE_SECONDS = 2.0  # before the second attempt; grows with each
_TIMEOUT_SECONDS = 60


def is_url(text: str) -> bool:
    """Whether a text is a web address rather than a path."""
    return text.startswith(("http://", "https://"))


def fetch(url: str) -> Path:
    """The file of a URL, from the cache if it is there; ``#sha256=<64 hex digits>`` at its end is checked either way.

    Raises:
        ValueError: if it cannot be had (the message says where to put it by hand), or its digest is another.
    """
    address, _, fragment = url.partition("#")
    if fragment and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise ValueError(f"{url}: what follows '#' must be sha256=<64 hex digits>, got {fragment!r}")
    wanted = fragment.removeprefix("sha256=").lower()
    target = _cached_path(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock")):  # the other processes of a job wait, and then find the file
        if target.is_file():
            _check_digest(target, wanted, url, f"delete {target} to download it again")
        else:
            with atomic_write(target) as part:
                _download(address, part, target)
                _check_digest(part, wanted, url, "nothing was kept; check the address and the digest")
    return target


def _cached_path(address: str) -> Path:
    """<cache>/<host>/<path>, which a person can also fill by hand."""
    cache = Path(os.environ.get("PPMTL_CACHE") or Path.home() / ".cache" / "ppmtl")
    parts = urlsplit(address)
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".", "..")]
    if parts.query:  # part of what is asked for, so part of the name
        names[-1:] = [f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}_{(names or ['file'])[-1]}"]
    if not names or not parts.hostname:
        raise ValueError(f"{address}: names no file")
    return cache.joinpath(parts.netloc.rpartition("@")[2].replace(":", "_"), *names)


def _download(address: str, part: Path, target: Path) -> None:
    """Fills ``part``, from the start again after a broken transfer or an error of the server."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _transfer(address, part, target.name)
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == _ATTEMPTS:
                raise ValueError(
                    f"{address}: cannot be downloaded ({error}).\n"
                    f"Without a network: download it on another machine and put it at\n  {target}\n"
                    "(PPMTL_CACHE changes the folder), or give its path instead of the address"
                ) from error
            time.sleep(_PAUSE_SECONDS * attempt)


def _transfer(address: str, part: Path, name: str) -> None:
    headers = {"User-Agent": f"ppmtl/{ppmtl.__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response, part.open("wb") as file:
        total = int(response.headers.get("Content-Length", 0))
        with tqdm.wrapattr(file, "write", total=total or None, desc=name, disable=None) as shown:
            shutil.copyfileobj(response, shown, 1 << 20)
        if total and file.tell() != total:
            raise ConnectionError(f"the transfer ended after {file.tell()} of {total} bytes")


def _check_digest(path: Path, wanted: str, url: str, fix: str) -> None:
    if wanted and (digest := sha256(path)) != wanted:
        raise ValueError(f"{url}: the file's SHA-256 is {digest}, not the one asked for; {fix}")
