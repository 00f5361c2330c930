"""Reads a multipart body under limits: it is measured while it arrives, and reading stops where a limit is passed."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ppmtl_service.errors import ServiceError
from ppmtl_service.intake import Upload
from ppmtl_service.options import Options

FIELDS = ("tasks", "threshold", "tta", "mask")
_FIELD_BYTES = 1024  # a list of task names is the longest


@dataclass
class Form:
    """What one request asks: its pictures and its text fields."""

    files: list[Upload] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    bytes: int = 0


class UploadBudget:
    """Bytes of unfinished uploads, of all requests together. Used on the event loop only, so without a lock."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, count: int) -> None:
        """Raises ServiceError 429 if ``count`` more bytes are too many."""
        if self.held + count > self.limit:
            raise ServiceError(
                429, "busy", "too many uploads at once; try again in a moment", headers={"Retry-After": "1"}
            )
        self.held += count


class _Parser(MultiPartParser):
    spool_max_size = sys.maxsize  # in memory, never in temporary files: the body's length is limited already
    complete = False

    def on_end(self) -> None:
        self.complete = True


async def read_form(request: Request, options: Options, budget: UploadBudget, form: Form) -> None:
    """Reads the request's body into ``form``; ``form.bytes`` of ``budget`` are held then, also after an error.

    Raises:
        ServiceError: 400 for a wrong form or field or too many pictures, 413 if it is too large, 415 if it
            is not multipart.
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise ServiceError(
            415,
            "not_multipart",
            f"the body must be multipart/form-data with the pictures as 'images', got {kind[:80]!r}",
        )
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > options.max_bytes:
        raise _too_many_bytes(options)
    parser = _Parser(
        request.headers,
        _measured(request, options, budget, form),
        max_files=options.max_images,
        max_fields=len(FIELDS),
        max_part_size=_FIELD_BYTES,
    )
    try:
        parts = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        if sum(isinstance(value, UploadFile) for _, value in parser.items) >= options.max_images:
            raise ServiceError(
                400, "too_many_images", f"at most {options.max_images} pictures per request; send several requests"
            ) from error
        raise ServiceError(400, "bad_form", f"the form cannot be read: {error}") from error
    if not parser.complete:
        raise ServiceError(400, "bad_form", "the form ends before its last boundary; send it again, whole")
    for name, value in parts.multi_items():
        await _add(form, name, value)
    if not form.files:
        raise ServiceError(400, "no_images", "the form has no picture; send at least one file as 'images'")


async def _measured(
    request: Request, options: Options, budget: UploadBudget, form: Form
) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        if form.bytes + len(chunk) > options.max_bytes:
            raise _too_many_bytes(options)
        budget.take(len(chunk))
        form.bytes += len(chunk)
        yield chunk


def _too_many_bytes(options: Options) -> ServiceError:
    return ServiceError(
        413, "too_many_bytes", f"at most {options.max_bytes} bytes per request; send fewer or smaller pictures"
    )


async def _add(form: Form, name: str, value: UploadFile | str) -> None:
    if isinstance(value, UploadFile):
        if name != "images":
            raise ServiceError(400, "unknown_field", f"files are sent as 'images', got one as {name[:40]!r}")
        # A path is the client's own business; its last part is enough to tell pictures apart.
        label = PurePosixPath((value.filename or "").replace("\\", "/")).name[:200] or f"image {len(form.files) + 1}"
        form.files.append(Upload(label, await value.read()))
        await value.close()
    elif name == "images":
        raise ServiceError(400, "bad_field", "'images' must be files, got text; give each part a filename")
    elif name not in FIELDS:
        raise ServiceError(400, "unknown_field", f"unknown field {name[:40]!r}; known are images, {', '.join(FIELDS)}")
    elif name in form.fields:
        raise ServiceError(400, "bad_field", f"{name} is given twice; give it once")
    else:
        form.fields[name] = value
