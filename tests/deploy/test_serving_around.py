"""What surrounds the answers: key, log, metrics, headers."""

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ppmtl_service.service import PixelBudget
from serving_client import RED, post, refusal, running


@pytest.fixture(scope="module")
def client():
    with running() as result:
        yield result


def test_the_key_is_asked_for_where_it_should_be():
    with running(api_key=b"s\xc3\xa9same") as client:
        for headers in ({}, {"X-API-Key": "sesam"}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}):
            for method, path in (("POST", "/v1/predict"), ("GET", "/v1/model"), ("GET", "/metrics")):
                response = client.request(method, path, headers=headers)
                assert refusal(response) == (401, "wrong_key")
                assert response.headers["www-authenticate"] == "Bearer"
        for name, start in (("Authorization", "Bearer "), ("X-API-Key", "")):
            assert client.get("/v1/model", headers={name: f"{start}s\u00e9same".encode()}).status_code == 200
        for path in ("/healthz", "/readyz", "/openapi.json", "/"):
            assert client.get(path).status_code == 200


def test_the_log_has_one_line_per_request_without_file_names_or_contents(client, caplog):
    with caplog.at_level(logging.INFO, "ppmtl.serving"):
        client.post("/v1/predict", files={"images": ("secret.png", RED)}, headers={"X-Request-ID": "abc-1"})
        client.post("/v1/predict", files={"images": ("secret.png", b"secret bytes")})
        client.get("/healthz")
    lines = [record.fields for record in caplog.records if record.message == "request"]
    assert [(line["status"], line["route"], line["images"]) for line in lines] == [
        (200, "/v1/predict", 1),
        (415, "/v1/predict", 1),
    ]
    assert lines[0]["request_id"] == "abc-1"
    assert lines[1]["error"] == "not_an_image"
    assert "secret" not in json.dumps(lines)


@pytest.mark.parametrize("given", ["x" * 65, 'a"b'])
def test_a_request_id_that_could_forge_a_log_is_replaced(client, given):
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] != given


def test_metrics_count_routes_stages_and_batches():
    with running() as client:
        post(client)
        client.get("/some/path")
        client.request("BREW", "/v1/model")
        lines = set(client.get("/metrics").text.splitlines())
    expected = {
        'ppmtl_requests_total{method="POST",route="/v1/predict",status="200"} 1.0',
        'ppmtl_requests_total{method="GET",route="other",status="404"} 1.0',
        'ppmtl_requests_total{method="other",route="/v1/model",status="405"} 1.0',
        "ppmtl_batch_size_count 1.0",
        "ppmtl_images_total 1.0",
        "ppmtl_queue_depth 0.0",
        "ppmtl_ready 1.0",
    } | {f'ppmtl_stage_seconds_count{{stage="{s}"}} 1.0' for s in ("upload", "decode", "queue", "predict", "encode")}
    assert expected <= lines, expected - lines


def test_every_answer_has_the_security_headers_and_none_allows_other_origins(client):
    for path in ("/", "/healthz", "/v1/model", "/nothing", "/page/nothing", "/page/..%2fserve.py"):
        answer = client.get(path, headers={"Origin": "https://elsewhere.example"})
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for path in ("/docs", "/redoc", "/page/..%2fserve.py"):  # the first two would load scripts from elsewhere
        assert refusal(client.get(path)) == (404, "not_found")


def test_the_model_document_says_tasks_classes_limits_and_defaults(client):
    document = client.get("/v1/model").json()
    det = document["tasks"]["det"]
    assert det["type"] == "detection"
    assert [(c["index"], c["id"], c["name"]) for c in det["classes"]] == [(0, 3, "stop"), (1, 7, "go")]
    assert document["limits"]["formats"] == ["jpeg", "png", "webp", "bmp"]
    assert document["defaults"] == {"threshold": 0.5, "size": [32, 48]}


def test_the_pixel_budget_lets_one_too_large_image_through_alone():
    budget, order = PixelBudget(10), []

    def work(pixels):
        with budget.hold(pixels):
            order.append(budget._held)
            time.sleep(0.01)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [6, 6, 50, 4, 4, 4]))
    assert max(held for held in order if held != 50) <= 10
    assert order.count(50) == 1
