"""Reads a multipart body with Starlette's parser, under limits: it is counted while it arrives, and refused beyond them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from ppmtl_service.errors import ServiceError
from ppmtl_service.options import Options

# In memory, never in temporary files: bodies are counted, and a container's /tmp is smaller than what may be held.
MultiPartParser.spool_max_size = sys.maxsize


class Uploads:
    """Counts the bytes of all unfinished requests together. Used on the event loop only, so without a lock."""

    def __init__(self, options: Options) -> None:
        self._options, self.held = options, 0

    @asynccontextmanager
    async def counted(self, request: Request) -> AsyncIterator[Request]:
        """The same request; reading it raises ServiceError 413 or 429 at too many bytes, which are held during the block."""
        taken = 0

        async def receive() -> Message:
            nonlocal taken
            message = await request.receive()
            count = len(message.get("body", b""))
            check_total(taken + count, self._options.max_bytes)
            if self.held + count > 8 * self._options.max_bytes:
                raise ServiceError(429, "busy", "too many uploads at once; try again in a moment", {"Retry-After": "1"})
            taken += count
            self.held += count
            return message

        try:
            yield Request(request.scope, receive)
        finally:
            self.held -= taken
            request.state.log["bytes"] = taken


async def read_form(request: Request, options: Options) -> FormData:
    """The request's form.

    Raises:
        ServiceError: 400 for a broken form or too many images, 413 if it is announced as too large, 415 for another type.
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        expected = "the body must be multipart/form-data with the images as 'images'"
        raise ServiceError(415, "not_multipart", f"{expected}, got {kind[:80]!r}")
    declared = request.headers.get("content-length", "")
    check_total(int(declared) if declared.isascii() and declared.isdigit() else 0, options.max_bytes)
    try:
        return await request.form(
            max_files=options.max_images, max_fields=8, max_part_size=1024
        )  # text fields are short
    except HTTPException as error:
        if isinstance(error, ServiceError):
            raise
        code = "too_many_images" if error.detail.startswith("Too many files") else "bad_form"
        raise ServiceError(400, code, f"the form cannot be read: {error.detail}") from error


def check_total(count: int, limit: int) -> None:
    """Raises ServiceError 413 if a body is larger than the limit."""
    if count > limit:
        message = f"at most {limit} bytes per request; send fewer or smaller images"
        raise ServiceError(413, "too_many_bytes", message)
