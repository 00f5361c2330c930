"""The OpenAPI document is complete, and requests made up from it are answered as it says."""

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from ppmtl_service.app import create_app
from ppmtl_service.options import Options
from ppmtl_service.service import Service
from serving_fakes import FakeNetwork, encoded, fake_model, image, wait_until

# What the document calls "format: binary" is an image more often than not; else nothing but refusals would be tried.
IMAGES = [encoded(image(20, 30)), encoded(image(9, 7), "JPEG"), b"<svg/>", encoded(image())[:50], b""]
schemathesis.openapi.format("binary", st.sampled_from(IMAGES))


ROUTES = ("POST /v1/predict", "GET /v1/model", "GET /metrics", "GET /healthz", "GET /readyz")


@pytest.fixture(scope="module")
def document():
    """Returns the schema of a ready service; the network behind it answers at once."""
    service = Service(fake_model(FakeNetwork()), Options(max_images=3))
    app = create_app(service)

    async def only_http(scope, receive, send):  # schemathesis would start and end the service at every request
        if scope["type"] == "http":
            await app(scope, receive, send)
            return
        for answer in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await receive()
            await send({"type": answer})

    with TestClient(app) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield schemathesis.openapi.from_asgi("/openapi.json", only_http)


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    "route, mode", [(route, POSITIVE) for route in ROUTES] + [(ROUTES[0], NEGATIVE)], ids=lambda value: str(value)
)
def test_made_up_requests_are_answered_as_documented(document, route, mode):
    method, path = route.split()
    seen = set()

    # Not schemathesis' pytest decorator: it wants a pytest older than ours.
    @hypothesis.settings(
        max_examples=40,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(document[path][method].as_strategy(generation_mode=mode))
    def answered_as_documented(case):
        response = case.call()
        seen.add(response.status_code)
        # A random file is refused although its type is right, which is no fault of the document.
        case.validate_response(response, excluded_checks=[schemathesis.checks.positive_data_acceptance])

    answered_as_documented()
    if method == "POST":
        assert seen & ({200} if mode is POSITIVE else {400})


def test_the_document_names_every_route_and_status():
    app = create_app(Service(fake_model(FakeNetwork()), Options(api_key=b"key")))
    paths = app.openapi()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(ROUTES)
    assert set(paths["/v1/predict"]["post"]["responses"]) == {
        "200", "400", "401", "408", "413", "415", "422", "429", "500", "503", "504"
    }  # fmt: skip
    form = paths["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "tasks", "threshold", "tta", "mask"}
    schemes = app.openapi()["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    result = app.openapi()["components"]["schemas"]["Result"]["properties"]
    assert set(result) == {"file", "height", "width", "seg", "cls", "det"}
