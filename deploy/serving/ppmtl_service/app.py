"""The routes."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from ppmtl_service import schema
from ppmtl_service.errors import ServiceError, error_response
from ppmtl_service.front import Front
from ppmtl_service.intake import Upload
from ppmtl_service.service import Service
from ppmtl_service.uploads import read_form

PAGE = Path(__file__).resolve().parents[1] / "page"
Responses = dict[int | str, dict[str, Any]]  # {status: FastAPI's description of it}


def create_app(service: Service) -> FastAPI:
    """The ASGI application; its start-up begins to load the model, its shutdown ends the service's threads."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="ppmtl",
        version="1",
        summary=f"Scene understanding with the model {service.model.name}.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(HTTPException, _answer_error)
    # nginx's number for "the client closed the connection"; nobody receives it, the log and the counters do
    app.add_exception_handler(ClientDisconnect, lambda *_: Response(status_code=499))
    _add_api(app, service)
    app.add_api_route("/", lambda: FileResponse(PAGE / "index.html"), include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_middleware(Front, metrics=service.metrics)
    return app


def _key_needed(expected: bytes | None) -> list[Any]:
    """The routes' dependencies: none, or the check of the API key."""
    if expected is None:
        return []

    def check(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
        header: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
    ) -> None:
        given = bearer.credentials if bearer else header or ""
        if not hmac.compare_digest(given.encode("latin-1"), expected):  # headers arrive decoded as latin-1
            message = "send the API key as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'"
            raise ServiceError(401, "wrong_key", message, {"WWW-Authenticate": "Bearer"})

    return [Depends(check)]


def _add_api(app: FastAPI, service: Service) -> None:
    options, wanted = service.options, schema.form_type(service.model)
    needs = _key_needed(options.api_key)
    unauthorized: Responses = {401: {"model": schema.ErrorAnswer}} if needs else {}
    refused: Responses = {key: {"model": schema.ErrorAnswer} for key in (400, 408, 413, 415, 422, 429, 500, 503, 504)}

    @app.post(
        "/v1/predict",
        summary="Predict images",
        responses={200: {"model": schema.predict_answer(service.model)}, **unauthorized, **refused},
        openapi_extra={"requestBody": schema.predict_body(wanted, options.max_images)},
        response_model=None,
        dependencies=needs,
    )
    async def predict(request: Request) -> Response:
        service.require_ready()
        service.require_room(1)  # before the upload, so that a full service costs its clients nothing
        async with service.uploads.counted(request) as counted:
            return await _predict(service, wanted, counted)

    @app.get("/v1/model", summary="Tasks, classes and limits", responses=unauthorized, dependencies=needs)
    async def model() -> schema.ModelAnswer:
        return schema.describe(service.model, options)

    @app.get(
        "/metrics",
        summary="Numbers for Prometheus",
        responses={200: {"content": {"text/plain": {}}}, **unauthorized},
        response_class=Response,
        dependencies=needs,
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    health = dict[Literal["status"], str]
    responses: Responses = {200: {"model": health}, 503: {"model": health}}

    @app.get("/healthz", summary="Is it alive?", responses=responses)
    async def healthz() -> JSONResponse:
        alive = service.state != "failed"
        return JSONResponse({"status": "alive" if alive else "dead"}, 200 if alive else 503)

    @app.get("/readyz", summary="Does it take images?", responses=responses)
    async def readyz() -> JSONResponse:
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503)


async def _predict(service: Service, wanted_type: type[schema.Wanted], request: Request) -> Response:
    """The answer to POST /v1/predict."""
    started, limit = request.state.started, service.options.timeout_s
    try:
        form = await asyncio.wait_for(read_form(request, service.options), limit)
    except asyncio.TimeoutError as error:
        message = f"the upload took more than {limit:g} s; send less at once"
        raise ServiceError(408, "upload_too_slow", message) from error
    uploads, wanted = await _read_images(form), schema.read_fields(form, wanted_type)
    seconds = time.perf_counter() - started
    service.metrics.stage_seconds.labels("upload").observe(seconds)
    request.state.log.update(images=len(uploads), tasks=wanted.tasks.split(","))
    try:
        results, stages = await asyncio.wait_for(service.predict(uploads, wanted), limit - seconds)
    except asyncio.TimeoutError as error:
        message = f"no answer within {limit:g} s; send fewer images, or try again later"
        raise ServiceError(504, "time_limit", message) from error
    stages["total"] = time.perf_counter() - started
    timings = {stage: round(1000 * stages[stage], 2) for stage in ("decode", "queue", "predict", "total")}
    request.state.log["timings_ms"] = timings
    model = {"name": service.model.name, "version": service.model.version}
    rest = json.dumps({"timings_ms": timings, "request_id": request.state.request_id})
    # The results are JSON already, made on the threads that found them.
    answer = b'{"model":%s,"results":[%s],%s' % (json.dumps(model).encode(), b",".join(results), rest[1:].encode())
    return Response(answer, media_type="application/json")


async def _read_images(form: FormData) -> list[Upload]:
    uploads: list[Upload] = []
    for value in form.getlist("images"):
        if not isinstance(value, UploadFile):
            raise ServiceError(400, "bad_field", "'images' must be files, got text; give each part a filename")
        # A path is the client's own business; its last part is enough to tell images apart.
        name = PurePosixPath((value.filename or "").replace("\\", "/")).name[:200] or f"image {len(uploads) + 1}"
        uploads.append(Upload(name, await value.read()))
    if not uploads:
        raise ServiceError(400, "no_images", "the form has no image; send at least one file as 'images'")
    return uploads


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request.state.log["error"] = getattr(error, "code", error.detail)
    return error_response(error, request.state.request_id)
