"""Requests and answers, in-process."""

import base64
import json
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from ppmtl_service.app import create_app
from ppmtl_service.options import Options
from ppmtl_service.service import PixelBudget, Service
from serving_fakes import TASKS, FakeNetwork, encoded, fake_model, picture, wait_until

from ppmtl.predictions import to_json

RED = encoded(picture())


@contextmanager
def running(network=None, page=None, model=None, **options):
    """A client whose ``.service`` is ready."""
    service = Service(model or fake_model(network or FakeNetwork()), Options(**options))
    app = create_app(service) if page is None else create_app(service, page)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: service.state != "loading")
        client.service = service
        yield client


@pytest.fixture(scope="module")
def client():
    with running() as result:
        yield result


def post(client, *pictures, **fields):
    files = [("images", (f"{i}.png", data)) for i, data in enumerate(pictures or [RED])]
    return client.post("/v1/predict", files=files, data=fields)


def refusal(response):
    """Returns (status, code) of an error, whose shape is checked."""
    document = response.json()
    assert set(document) == {"error", "request_id"}
    assert set(document["error"]) == {"code", "message"}
    assert document["request_id"] == response.headers["x-request-id"]
    return response.status_code, document["error"]["code"]


def test_an_answer_is_what_the_pipeline_says(client):
    pixels = picture()
    document = post(client, threshold="0.2").json()
    result = document["results"][0]
    tasks = tuple(TASKS)
    expected = client.service.model.pipeline(tasks, FakeNetwork(), (60, 80), augment=False).predict([pixels], ["x"])[0]
    assert (result["file"], result["height"], result["width"]) == ("0.png", 60, 80)
    png = base64.b64decode(result["seg"].pop("mask")["data"])
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), expected["seg"].labels)
    for name in tasks:
        assert result[name] == json.loads(json.dumps(to_json(expected[name], TASKS[name].classes))), name
    assert [box["category_id"] for box in result["det"]["boxes"]] == [3, 7]
    assert document["model"] == {"name": "fake", "version": "1"}
    assert set(document["timings_ms"]) == {"decode", "queue", "predict", "total"}


def test_many_clients_at_once_each_get_their_own_answer():
    network = FakeNetwork(slow=0.01)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)] * 8
    names = {(250, 0, 0): "red", (0, 250, 0): "green", (0, 0, 250): "blue"}
    with running(network, max_batch=4) as client, ThreadPoolExecutor(12) as pool:
        answers = pool.map(
            lambda c: post(client, encoded(np.full((40, 50, 3), c, np.uint8)), tasks="cls").json(), colours
        )
        assert [a["results"][0]["cls"]["top"][0]["class"] for a in answers] == [names[c] for c in colours]
    sizes = [shape[0] for shape, tasks in network.runs if tasks == ("cls",)]
    assert max(sizes) > 1
    assert max(sizes) <= 4
    assert sum(sizes) == 24


def test_pictures_of_one_request_come_back_in_order(client):
    green = encoded(np.full((30, 40, 3), (0, 250, 0), np.uint8))
    results = post(client, RED, green, RED, tasks="cls").json()["results"]
    assert [(r["file"], r["height"], r["cls"]["top"][0]["class"]) for r in results] == [
        ("0.png", 60, "red"),
        ("1.png", 30, "green"),
        ("2.png", 60, "red"),
    ]


def test_only_the_tasks_asked_for_are_run():
    network = FakeNetwork()
    with running(network) as client:
        network.runs.clear()
        result = post(client, tasks="det,cls").json()["results"][0]
        assert set(result) == {"file", "height", "width", "cls", "det"}
        assert [tasks for _, tasks in network.runs] == [("cls", "det")]


def test_tta_shows_every_tasks_views():
    network = FakeNetwork()
    with running(network) as client:
        network.runs.clear()
        assert post(client, tasks="cls", tta="true").status_code == 200
        assert sorted(shape[1:3] for shape, _ in network.runs) == [(60, 80), (60, 80), (120, 160), (120, 160)]


def test_tta_takes_a_quarter_of_the_pixels():
    with running(max_pixels=4 * 60 * 80 - 1) as client:
        assert refusal(post(client, tta="true")) == (413, "image_too_large")
        assert post(client).status_code == 200
        assert client.get("/v1/model").json()["limits"]["max_pixels_tta"] == 60 * 80 - 1


def test_tta_is_refused_by_a_model_of_one_size():
    with running(model=fake_model(FakeNetwork(), tta=False)) as client:
        assert refusal(post(client, tta="true")) == (400, "bad_field")
        assert client.get("/v1/model").json()["tta"] is False


@pytest.mark.parametrize("threshold, count", [("0", 2), ("0.31", 1), ("1", 0)])
def test_the_threshold_is_the_lowest_score_shown(client, threshold, count):
    boxes = post(client, tasks="det", threshold=threshold).json()["results"][0]["det"]["boxes"]
    assert len(boxes) == count


@pytest.mark.parametrize(
    "mask, keys", [("none", set()), ("rle", {"encoding", "size", "counts"}), ("png", {"encoding", "data"})]
)
def test_the_mask_is_sent_as_asked(client, mask, keys):
    assert set(post(client, tasks="seg", mask=mask).json()["results"][0]["seg"].get("mask", {})) == keys


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"tasks": "seg,depth"}, "tasks: got 'seg,depth', allowed is .*seg, cls, det"),
        ({"tasks": "seg,seg"}, "without repetition"),
        ({"tasks": ""}, "tasks"),
        ({"threshold": "1.01"}, "threshold: got '1.01', allowed is a number from 0 to 1"),
        ({"threshold": "nan"}, "threshold"),
        ({"threshold": "half"}, "threshold"),
        ({"tta": "yes"}, "tta: got 'yes', allowed is true or false"),
        ({"mask": "jpeg"}, "mask: got 'jpeg', allowed is png or rle or none"),
        ({"treshold": "0.5"}, "unknown field 'treshold'; known are"),
        ({"tta": ["true", "true"]}, "twice"),
        ({"tasks": "x" * 2000}, "form"),
        ({"images": "text"}, "must be files"),
    ],
)
def test_a_wrong_field_is_400_and_says_what_is_allowed(client, fields, named):
    response = post(client, **fields)
    assert refusal(response)[0] == 400
    assert re.search(named, response.json()["error"]["message"])


def test_forms_that_are_none_are_refused(client):
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    half = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + RED + b"\r\n--x"
    cases = [
        ({}, b"hello", (415, "not_multipart")),
        ({"Content-Type": "application/json"}, b"{}", (415, "not_multipart")),
        ({"Content-Type": "multipart/form-data"}, b"--x--", (400, "bad_form")),
        (multipart, b"", (400, "bad_form")),
        (multipart, b"hello", (400, "bad_form")),
        (multipart, half, (400, "bad_form")),
        (multipart, half + b"--\r\n", (200, None)),
    ]
    for headers, body, expected in cases:
        response = client.post("/v1/predict", content=body, headers=headers)
        assert (response.status_code, None) == expected or refusal(response) == expected, (headers, body[:20])
    assert refusal(client.post("/v1/predict", data={"tasks": "seg"}, files={"picture": ("a", RED)})) == (
        400,
        "unknown_field",
    )
    assert refusal(client.post("/v1/predict", files={"tta": (None, "true")})) == (400, "no_images")


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"<svg/>", (415, "not_an_image")),
        (b"", (422, "empty_file")),
        (RED[:-40], (422, "broken_image")),
        (RED[:60], (422, "broken_image")),
        (encoded(picture(300, 300)), (413, "image_too_large")),
        (RED + b"\0" * 200_000, (413, "too_many_bytes")),
    ],
)
def test_the_service_lives_on_after_a_bad_picture(data, expected):
    with running(max_pixels=80_000, max_bytes=100_000) as client:
        assert refusal(post(client, data)) == expected
        assert refusal(post(client, RED, data, RED)) == expected
        assert post(client).status_code == 200
        assert client.service.admitted == client.service.in_flight == client.service.uploads.held == 0


def test_the_message_names_the_bad_one_of_several_pictures(client):
    assert post(client, RED, RED[:-40], RED).json()["error"]["message"].startswith("1.png: ")


def test_too_many_pictures_are_refused():
    with running(max_images=2) as client:
        assert post(client, RED, RED).status_code == 200
        assert refusal(post(client, RED, RED, RED)) == (400, "too_many_images")


def test_file_names_are_cut_to_their_last_part(client):
    files = [("images", (name, RED)) for name in ("../../etc/passwd", "C:\\me\\a.png", "x" * 999, "街.png")]
    names = [r["file"] for r in client.post("/v1/predict", files=files, data={"tasks": "cls"}).json()["results"]]
    assert names == ["passwd", "a.png", "x" * 200, "街.png"]


def test_a_full_queue_is_429_and_says_when_to_come_back():
    network = FakeNetwork()
    with running(network, queue_size=2, max_images=2, workers=1) as client, ThreadPoolExecutor(4) as pool:
        network.gate.clear()
        first = pool.submit(post, client, RED, RED)
        wait_until(lambda: client.service.admitted >= 2)
        response = post(client)
        assert refusal(response) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        network.gate.set()
        assert first.result().status_code == 200
        assert post(client).status_code == 200


def test_a_request_over_its_time_is_504_and_its_waiting_work_is_dropped():
    network = FakeNetwork()
    with running(network, timeout_s=0.3, workers=1) as client:
        network.gate.clear()
        network.runs.clear()
        response = post(client, RED, RED, RED)
        assert refusal(response) == (504, "time_limit")
        network.gate.set()
        wait_until(lambda: not client.service.admitted)
        assert len(network.runs) == 1  # what had begun; the two that waited never ran
        assert post(client).status_code == 200


def test_a_failing_network_is_500_and_the_service_lives_on(caplog):
    network = FakeNetwork()
    with running(network) as client, caplog.at_level(logging.ERROR, "ppmtl.serving"):
        network.broken = True
        assert refusal(post(client)) == (500, "internal")
        assert "the network broke" in caplog.text
        network.broken = False
        assert post(client).status_code == 200


def test_no_pictures_are_taken_before_the_model_is_ready_nor_while_it_drains():
    network = FakeNetwork()
    network.gate.clear()
    service = Service(fake_model(network), Options())
    with TestClient(create_app(service)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json() == {"status": "loading"}
        assert refusal(post(client)) == (503, "not_ready_loading")
        network.gate.set()
        wait_until(lambda: service.state != "loading")
        assert len(network.runs) == 2  # warm-up: one picture, then as many as run together
        assert client.get("/readyz").json() == {"status": "ready"}
        service.drain()
        assert client.get("/readyz").json() == {"status": "draining"}
        assert refusal(post(client)) == (503, "not_ready_draining")
        assert client.get("/healthz").status_code == 200


def test_the_key_is_asked_for_where_it_should_be():
    with running(api_key=b"s\xc3\xa9same") as client:
        good = {"Authorization": "Bearer s\u00e9same".encode()}
        for headers in ({}, {"X-API-Key": "sesam"}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}):
            for method, path in (("POST", "/v1/predict"), ("GET", "/v1/model"), ("GET", "/metrics")):
                response = client.request(method, path, headers=headers)
                assert refusal(response) == (401, "wrong_key")
                assert response.headers["www-authenticate"] == "Bearer"
        for headers in (good, {"X-API-Key": "s\u00e9same".encode()}):
            assert client.get("/v1/model", headers=headers).status_code == 200
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_an_empty_key_is_no_key_but_an_error():
    with pytest.raises(ValueError, match="empty"):
        Options(api_key=b"")


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


@pytest.mark.parametrize("given", ["x" * 65, "a b", 'a"b', ""])
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
        'ppmtl_request_seconds_count{route="/v1/predict"} 1.0',
        "ppmtl_batch_size_count 1.0",
        "ppmtl_images_total 1.0",
        "ppmtl_queue_depth 0.0",
        "ppmtl_in_flight_requests 1.0",
        "ppmtl_ready 1.0",
    } | {f'ppmtl_stage_seconds_count{{stage="{s}"}} 1.0' for s in ("upload", "decode", "queue", "predict", "encode")}
    assert expected <= lines, expected - lines


def test_every_answer_has_the_security_headers_and_none_allows_other_origins(client):
    headers = {"Origin": "https://elsewhere.example"}
    for path in ("/", "/healthz", "/v1/model", "/nothing", "/page/nothing"):
        answer = client.get(path, headers=headers)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/v1/predict", headers=headers | {"Access-Control-Request-Method": "POST"}).status_code == 405


def test_pages_that_load_from_elsewhere_are_off(client):
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_the_pages_files_are_served_with_their_types_and_nothing_beside_them(tmp_path):
    page = tmp_path / "page"
    (page / "examples").mkdir(parents=True)
    types = {"index.html": "text/html", "app.js": "javascript", "style.css": "text/css", "examples/a.png": "image/png"}
    for name in types:
        (page / name).write_text("x")
    (tmp_path / "secret.txt").write_text("secret")
    (page / "link.txt").symlink_to(tmp_path / "secret.txt")
    with running(page=page) as client:
        assert client.get("/").text == "x"
        for name, kind in types.items():
            assert kind in client.get(f"/page/{name}").headers["content-type"]
        for path in (
            "../secret.txt",
            "..%2fsecret.txt",
            "%2e%2e/secret.txt",
            "..\\secret.txt",
            "link.txt",
            "examples",
            "",
            "a%00b",
        ):
            assert refusal(client.get(f"/page/{path}"))[0] == 404, path


def test_without_a_page_the_root_says_where_to_send_pictures(tmp_path):
    with running(page=tmp_path / "none") as client:
        response = client.get("/")
        assert refusal(response) == (404, "not_found")
        assert "/v1/predict" in response.json()["error"]["message"]


def test_the_model_document_says_tasks_classes_limits_and_defaults(client):
    document = client.get("/v1/model").json()
    assert document["tasks"]["det"]["type"] == "detection"
    assert [(c["index"], c["id"], c["name"]) for c in document["tasks"]["det"]["classes"]] == [
        (0, 3, "stop"),
        (1, 7, "go"),
    ]
    assert document["limits"]["formats"] == ["jpeg", "png", "webp", "bmp"]
    assert document["defaults"] == {"threshold": 0.5, "size": [32, 48]}


def test_the_pixel_budget_lets_one_too_large_picture_through_alone():
    budget, order = PixelBudget(10), []

    def work(pixels):
        with budget.hold(pixels):
            order.append(budget._held)
            time.sleep(0.01)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [6, 6, 50, 4, 4, 4]))
    assert max(held for held in order if held != 50) <= 10
    assert order.count(50) == 1


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"timeout_s": 0}, {"max_delay_ms": -1}, {"queue_size": 3}])
def test_options_that_make_no_sense_are_refused_by_their_flags_name(wrong):
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
        Options(**wrong)
