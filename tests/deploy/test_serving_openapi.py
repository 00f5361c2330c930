"""The OpenAPI document names every route, status and field, and answers are as it says."""

import pytest
from ppmtl_service import schema
from ppmtl_service.app import create_app
from ppmtl_service.options import Options
from ppmtl_service.service import Service
from pydantic import TypeAdapter
from serving_client import RED, post, running
from serving_fakes import FakeNetwork, fake_model

ROUTES = {"POST /v1/predict", "GET /v1/model", "GET /metrics", "GET /healthz", "GET /readyz"}


def test_the_document_names_every_route_status_and_field():
    document = create_app(Service(fake_model(FakeNetwork()), Options(api_key=b"key"))).openapi()
    paths, schemas = document["paths"], document["components"]["schemas"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == ROUTES
    predict = paths["/v1/predict"]["post"]
    assert {int(status) for status in predict["responses"]} == {200, 400, 401, 408, 413, 415, 422, 429, 500, 503, 504}
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"images", "tasks", "threshold", "tta", "mask"}
    assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {"http", "apiKey"}
    assert set(schemas["Result"]["properties"]) == {"file", "height", "width", "seg", "cls", "det"}
    assert set(schemas["ClassSharesAndMask"]["properties"]) == {"classes", "mask"}


@pytest.mark.parametrize("fields", [{}, {"mask": "rle", "tasks": "seg,det"}, {"mask": "none", "tta": "true"}], ids=str)
def test_answers_are_of_the_documented_type(fields):
    with running() as client:
        answer = post(client, RED, RED, **fields).json()
        documented = TypeAdapter(schema.predict_answer(client.service.model))
        assert documented.validate_python(answer, strict=True) == answer  # unknown keys would be gone
        model = client.get("/v1/model").json()
        assert TypeAdapter(schema.ModelAnswer).validate_python(model, strict=True) == model
        error = post(client, b"").json()
        assert TypeAdapter(schema.ErrorAnswer).validate_python(error, strict=True) == error
