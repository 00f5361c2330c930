"""The service in-process, and its clients."""

from contextlib import contextmanager

from fastapi.testclient import TestClient
from ppmtl_service.app import create_app
from ppmtl_service.options import Options
from ppmtl_service.service import Service
from serving_fakes import FakeNetwork, encoded, fake_model, image, wait_until

RED = encoded(image())


@contextmanager
def running(network=None, model=None, **options):
    """A client whose ``.service`` is ready."""
    service = Service(model or fake_model(network or FakeNetwork()), Options(**options))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        wait_until(lambda: service.state != "loading")
        client.service = service
        yield client


def post(client, *images, **fields):
    files = [("images", (f"{i}.png", data)) for i, data in enumerate(images or [RED])]
    return client.post("/v1/predict", files=files, data=fields)


def refusal(response):
    """(status, code) of an error, whose shape is checked."""
    document = response.json()
    assert set(document) == {"error", "request_id"}
    assert set(document["error"]) == {"code", "message"}
    assert document["request_id"] == response.headers["x-request-id"]
    return response.status_code, document["error"]["code"]
