"""The routes."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from ppmtl_service import schema
from ppmtl_service.errors import NO_STORE, ServiceError, error_response
from ppmtl_service.front import Front
from ppmtl_service.intake import FORMATS
from ppmtl_service.service import Service
from ppmtl_service.uploads import Form, read_form
from ppmtl_service.wanted import read_wanted

PAGE = Path(__file__).resolve().parents[1] / "page"
_GONE = 499  # nginx's number for "the client closed the connection"; nobody receives it, the log and the counters do
_REASONS = {
    400: "a field or the form is wrong, or there are too many pictures",
    401: "the API key is missing or wrong",
    408: "the upload took longer than the time limit",
    413: "too many bytes or pixels",
    415: "not multipart, or a file that is no JPEG, PNG, WebP or BMP picture",
    422: "a picture is empty, damaged or cut off",
    429: "the queue is full; Retry-After says when to try again",
    500: "the service failed; its log says why",
    503: "the model is loading, or the service stops",
    504: "no answer within the time limit",
}


def create_app(service: Service, page: Path = PAGE) -> FastAPI:
    """Returns the ASGI application; its start-up begins to load the model, its shutdown ends the service's threads.

    Args:
        service: not yet started.
        page: folder of the page's files.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.close)

    app = FastAPI(
        title="ppmtl",
        version="1",
        summary=f"Scene understanding with the model {service.model.name}.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(ServiceError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    _add_api(app, service)
    _add_probes(app, service)
    _add_page(app, page)
    app.add_middleware(Front, metrics=service.metrics)
    return app


def _documented(ok: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns FastAPI's ``responses``: what 200 is, and every other status that the route may answer."""
    result: dict[int | str, dict[str, Any]] = {200: ok}
    for status in statuses:
        result[status] = {"model": schema.ErrorAnswer, "description": _REASONS[status]}
    return result


def _key_needed(service: Service) -> list[Any]:
    """Returns the routes' dependencies: none, or the check of the API key."""
    expected = service.options.api_key
    if expected is None:
        return []

    def check(request: Request) -> None:
        authorization = request.headers.get("authorization", "")
        scheme, _, credential = authorization.partition(" ")
        given = credential.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode("latin-1"), expected):  # headers arrive decoded as latin-1
            raise ServiceError(
                401,
                "wrong_key",
                "send the API key as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'",
                {"WWW-Authenticate": "Bearer"},
            )

    # The first two only document where the key goes.
    return [
        Depends(HTTPBearer(auto_error=False)),
        Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
        Depends(check),
    ]


def _add_api(app: FastAPI, service: Service) -> None:
    needs, unauthorized = _key_needed(service), (401,) if service.options.api_key is not None else ()
    answer = schema.predict_answer(service.model.tasks)

    @app.post(
        "/v1/predict",
        summary="Predict pictures",
        responses=_documented({"model": answer}, 400, *unauthorized, 408, 413, 415, 422, 429, 500, 503, 504),
        openapi_extra={"requestBody": schema.predict_body(service.model.tasks, service.options)},
        response_model=None,
        dependencies=needs,
    )
    async def predict(request: Request) -> Response:
        return await _predict(service, request)

    @app.get(
        "/v1/model",
        summary="Tasks, classes and limits",
        responses=_documented({"model": schema.ModelAnswer}, *unauthorized),
        response_model=None,
        dependencies=needs,
    )
    async def model() -> Response:
        return JSONResponse(_model_document(service), headers=NO_STORE)

    @app.get(
        "/metrics",
        summary="Numbers for Prometheus",
        responses=_documented({"content": {"text/plain": {}}}, *unauthorized),
        response_class=Response,
        dependencies=needs,
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST, headers=NO_STORE)


def _add_probes(app: FastAPI, service: Service) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        200: {"model": schema.Health},
        503: {"model": schema.Health, "description": "no"},
    }

    @app.get("/healthz", summary="Is it alive?", responses=responses, response_model=None)
    async def healthz() -> Response:
        alive = service.alive
        return JSONResponse({"status": "alive" if alive else "dead"}, 200 if alive else 503, NO_STORE)

    @app.get("/readyz", summary="Does it take pictures?", responses=responses, response_model=None)
    async def readyz() -> Response:
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503, NO_STORE)


def _add_page(app: FastAPI, page: Path) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        if not (page / "index.html").is_file():
            raise ServiceError(404, "not_found", "this service has no page; POST pictures to /v1/predict")
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=page, check_dir=False), name="page")


async def _predict(service: Service, request: Request) -> Response:
    """Returns the answer to POST /v1/predict."""
    service.require_ready()
    service.require_room(1)  # before the upload, so that a full service costs its clients nothing
    service.in_flight += 1
    form = Form()
    try:
        return await _within_limits(service, request, form)
    finally:
        service.in_flight -= 1
        service.uploads.held -= form.bytes


async def _within_limits(service: Service, request: Request, form: Form) -> Response:
    started, limit = request.state.started, service.options.timeout_s
    request.state.log["bytes"] = 0
    try:
        await asyncio.wait_for(read_form(request, service.options, service.uploads, form), limit)
    except asyncio.TimeoutError as error:
        raise ServiceError(
            408, "upload_too_slow", f"the upload took more than {limit:g} s; send less at once"
        ) from error
    except ClientDisconnect:
        return Response(status_code=_GONE)
    finally:
        request.state.log["bytes"] = form.bytes
    uploaded = time.perf_counter()
    service.metrics.stage_seconds.labels("upload").observe(uploaded - started)
    wanted = read_wanted(form.fields, tuple(service.model.tasks), service.model.threshold, tta=service.model.tta)
    request.state.log.update(images=len(form.files), tasks=list(wanted.tasks))
    work = asyncio.ensure_future(service.predict(form.files, wanted))
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({work, gone}, timeout=limit - (uploaded - started), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return _answer(service, request, *work.result())
        if gone.done():
            return Response(status_code=_GONE)
        raise ServiceError(504, "time_limit", f"no answer within {limit:g} s; send fewer pictures, or try again later")
    finally:
        work.cancel()
        gone.cancel()


async def _until_gone(request: Request) -> None:
    """Returns when the client has closed the connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(service: Service, request: Request, results: list[bytes], seconds: dict[str, float]) -> Response:
    total = time.perf_counter() - request.state.started
    shown = {"decode": seconds["decode"], "queue": seconds["queue"], "predict": seconds["predict"], "total": total}
    timings = {stage: round(1000 * value, 2) for stage, value in shown.items()}
    request.state.log["timings_ms"] = timings
    model = {"name": service.model.name, "version": service.model.version}
    rest = json.dumps({"timings_ms": timings, "request_id": request.state.request_id})
    # The results are JSON already, made on the threads that found them.
    body = b'{"model":%s,"results":[%s],%s' % (json.dumps(model).encode(), b",".join(results), rest[1:].encode())
    return Response(body, media_type="application/json", headers=NO_STORE)


def _model_document(service: Service) -> dict[str, Any]:
    model, options = service.model, service.options
    return {
        "name": model.name,
        "version": model.version,
        "tasks": model.describe(),
        "tta": model.tta,
        "limits": {
            "max_images": options.max_images,
            "max_bytes": options.max_bytes,
            "max_pixels": options.max_pixels,
            "max_pixels_tta": options.max_pixels_tta,
            "max_side": options.max_side,
            "formats": [name.lower() for name in FORMATS],
        },
        "defaults": {"threshold": model.threshold, "size": list(model.size) if model.size else None},
    }


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    request.state.log["error"] = error.code
    return error_response(error, request.state.request_id)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Returns Starlette's own errors (unknown path, wrong method) in the shape of all others."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    ours = ServiceError(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}", error.headers)
    return error_response(ours, request.state.request_id)
