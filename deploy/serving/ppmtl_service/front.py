"""What every request passes first: an id, security headers, one log line, the counters, an answer for our own errors."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ppmtl_service.errors import ServiceError, error_response
from ppmtl_service.logs import log
from ppmtl_service.metrics import Metrics

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds; "no" is an answer, so only failures are logged
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Front:
    """The outermost ASGI layer.

    ``scope["state"]`` gets "request_id", "started" and "log", a dict to which the routes add what is worth a log line.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        fields: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=request_id, log=fields, started=started)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:  # truly every error: the client gets an answer, the log the traceback
            log("error", logging.ERROR, exc_info=error, request_id=request_id)
            if status == 0:
                broken = ServiceError(500, "internal", "the service failed at this request; its log says why")
                await error_response(broken, request_id)(scope, receive, send_with_headers)
        finally:
            self.metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", None) or "other"  # the path itself would be without bound
            seconds = time.perf_counter() - started
            self.metrics.answered(route, scope["method"], status, seconds)
            if route not in _QUIET or status not in (200, 503):
                fields |= {"request_id": request_id, "method": scope["method"][:16], "route": route, "status": status}
                log("request", logging.INFO if status < 500 else logging.WARNING, ms=round(1000 * seconds, 1), **fields)
