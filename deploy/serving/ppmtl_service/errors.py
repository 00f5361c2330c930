"""What the service answers when it cannot answer: one shape for every status."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

NO_STORE = {"Cache-Control": "no-store"}


class ServiceError(Exception):
    """A request that cannot be served, with the reason for its sender.

    Attributes:
        status: of the HTTP answer.
        code: for programs; does not change between versions.
        message: for people: what was got, what is allowed, how to mend.
        headers: extra ones of the answer, e.g. Retry-After.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


def error_response(error: ServiceError, request_id: str) -> Response:
    """Returns ``error`` as JSON: {"error": {"code", "message"}, "request_id"}."""
    document = {"error": {"code": error.code, "message": error.message}, "request_id": request_id}
    return Response(
        json.dumps(document, ensure_ascii=False), error.status, NO_STORE | error.headers, "application/json"
    )
