"""What the service answers when it cannot answer: one shape for every status."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


class ServiceError(HTTPException):
    """A request that cannot be served; ``code`` is for programs and stays, ``message`` tells people how to fix it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.code = code


def error_response(error: HTTPException, request_id: str) -> JSONResponse:
    """The error as JSON: {"error": {"code", "message"}, "request_id"}; Starlette's own (404, 405) look like ours."""
    code = getattr(error, "code", None) or {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
    document = {"error": {"code": code, "message": error.detail}, "request_id": request_id}
    return JSONResponse(document, error.status_code, error.headers)
