"""Requests and answers, in-process."""

import base64
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from ppmtl_service.app import create_app
from ppmtl_service.options import Options
from ppmtl_service.service import Service
from serving_client import RED, post, refusal, running
from serving_fakes import TASKS, FakeNetwork, encoded, fake_model, image, wait_until
from typing_extensions import TypedDict

from ppmtl.predict.pipeline import Pipeline
from ppmtl.tasks.classification import Classification


@pytest.fixture(scope="module")
def client():
    with running() as result:
        yield result


def test_an_answer_is_what_the_pipeline_says(client):
    document = post(client, threshold="0.2").json()
    result = document["results"][0]
    expected = Pipeline(TASKS, FakeNetwork(), shared_size=(32, 48)).predict([image()], ["x"])[0]
    assert (result["file"], result["height"], result["width"]) == ("0.png", 60, 80)
    png = base64.b64decode(result["seg"].pop("mask")["data"])
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), expected["seg"].labels)
    for name, task in TASKS.items():
        assert result[name] == json.loads(json.dumps(task.to_json(expected[name], threshold=0.2))), name
    assert [box["category_id"] for box in result["det"]["boxes"]] == [3, 7]
    assert document["model"] == {"name": "fake", "version": "1"}
    assert set(document["timings_ms"]) == {"decode", "queue", "predict", "total"}


def test_a_task_type_that_the_service_has_never_seen_is_served_and_documented():
    class Caption(Classification):
        task_type, json_type = "captioning", TypedDict("Caption", {"text": str})

        def to_json(self, prediction, *, threshold=0.0):  # noqa: ARG002
            return {"text": f"something {self.classes.names[int(prediction.probs.argmax())]}"}

    model = fake_model(FakeNetwork(), tasks={"cls": Caption("cls", TASKS["cls"].classes)})
    with running(model=model) as client:
        assert post(client).json()["results"][0]["cls"] == {"text": "something red"}
        assert client.get("/v1/model").json()["tasks"]["cls"]["type"] == "captioning"
        assert "text" in client.get("/openapi.json").json()["components"]["schemas"]["Caption"]["properties"]


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


def test_images_of_one_request_come_back_in_order_with_the_last_part_of_their_names(client):
    green = encoded(np.full((30, 40, 3), (0, 250, 0), np.uint8))
    sent = [("../../etc/passwd", RED), ("C:\\me\\a.png", green), ("x" * 999, RED), ("街.png", RED)]
    answer = client.post("/v1/predict", files=[("images", file) for file in sent], data={"tasks": "cls"}).json()
    found = [(r["file"], r["height"], r["cls"]["top"][0]["class"]) for r in answer["results"]]
    assert found == [("passwd", 60, "red"), ("a.png", 30, "green"), ("x" * 200, 60, "red"), ("街.png", 60, "red")]


def test_only_the_tasks_asked_for_are_run():
    network = FakeNetwork()
    with running(network) as client:
        network.runs.clear()
        result = post(client, tasks="det,cls").json()["results"][0]
        assert set(result) == {"file", "height", "width", "cls", "det"}
        assert [tasks for _, tasks in network.runs] == [("cls", "det")]


def test_tta_shows_every_tasks_views_and_takes_a_quarter_of_the_pixels():
    network = FakeNetwork()
    with running(network, max_pixels=4 * 60 * 80) as client:
        network.runs.clear()
        assert post(client, tasks="cls", tta="true").status_code == 200
        assert sorted(shape[1:3] for shape, _ in network.runs) == [(60, 80), (60, 80), (120, 160), (120, 160)]
        assert refusal(post(client, encoded(image(61, 80)), tta="true")) == (413, "image_too_large")
        assert client.get("/v1/model").json()["limits"]["max_pixels_tta"] == 60 * 80
    with running(model=fake_model(FakeNetwork(), tta=False)) as client:
        assert refusal(post(client, tta="true")) == (400, "bad_field")
        assert client.get("/v1/model").json()["tta"] is False


def test_threshold_and_mask_are_what_was_asked_for(client):
    for threshold, count in (("0", 2), ("0.31", 1), ("1", 0)):
        boxes = post(client, tasks="det", threshold=threshold).json()["results"][0]["det"]["boxes"]
        assert len(boxes) == count
    for mask, keys in (("none", set()), ("rle", {"encoding", "size", "counts"}), ("png", {"encoding", "data"})):
        assert set(post(client, tasks="seg", mask=mask).json()["results"][0]["seg"].get("mask", {})) == keys


@pytest.mark.parametrize("fields, named", [
    ({"tasks": "seg,depth"}, "tasks: got 'seg,depth'; allowed is .*seg, cls, det"),
    ({"threshold": "1.01"}, "threshold: got '1.01'; Input should be less than or equal to 1"),
    ({"threshold": "nan"}, "threshold"),
    ({"tta": "maybe"}, "tta: got 'maybe'; Input should be a valid boolean"),
    ({"mask": "jpeg"}, "mask: got 'jpeg'; Input should be 'png', 'rle' or 'none'"),
    ({"treshold": "0.5"}, "unknown field 'treshold'; known are"),
    ({"tasks": "x" * 2000}, "form"),
    ({"images": "text"}, "must be files"),
])  # fmt: skip
def test_a_wrong_field_is_400_and_says_what_is_allowed(client, fields, named):
    response = post(client, **fields)
    assert refusal(response)[0] == 400
    assert re.search(named, response.json()["error"]["message"])


@pytest.mark.parametrize("headers, body, expected", [
    ({"Content-Type": "application/json"}, b"{}", (415, "not_multipart")),
    ({"Content-Type": "multipart/form-data"}, b"--x--", (400, "bad_form")),
    ({"Content-Type": "multipart/form-data; boundary=x"}, b"hello", (400, "bad_form")),
])  # fmt: skip
def test_forms_that_are_none_are_refused(client, headers, body, expected):
    assert refusal(client.post("/v1/predict", content=body, headers=headers)) == expected


def test_a_form_without_images_is_refused(client):
    assert refusal(client.post("/v1/predict", files={"tta": (None, "true")})) == (400, "no_images")
    files = [("images", ("a", RED)), ("picture", ("b", RED))]
    assert refusal(client.post("/v1/predict", files=files)) == (400, "unknown_field")


@pytest.mark.parametrize("data, expected", [
    (b"<svg/>", (415, "not_an_image")),
    (b"", (422, "empty_file")),
    (RED[:-40], (422, "broken_image")),
    (RED[:60], (422, "broken_image")),
    (encoded(image(300, 300)), (413, "image_too_large")),
    (RED + b"\0" * 200_000, (413, "too_many_bytes")),
])  # fmt: skip
def test_the_service_lives_on_after_a_bad_image(data, expected):
    with running(max_pixels=80_000, max_bytes=100_000) as client:
        assert refusal(post(client, data)) == expected
        several = post(client, RED, data, RED)
        assert refusal(several) == expected
        assert "1.png: " in several.json()["error"]["message"] or expected[1] == "too_many_bytes"
        assert post(client).status_code == 200
        assert client.service.admitted == client.service.uploads.held == 0


def test_too_many_images_are_refused():
    with running(max_images=2) as client:
        assert post(client, RED, RED).status_code == 200
        assert refusal(post(client, RED, RED, RED)) == (400, "too_many_images")


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


def test_no_images_are_taken_before_the_model_is_ready():
    network = FakeNetwork()
    network.gate.clear()
    service = Service(fake_model(network), Options())
    with TestClient(create_app(service)) as client:
        assert client.get("/healthz").status_code == 200
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "loading"})
        assert refusal(post(client)) == (503, "not_ready_loading")
        network.gate.set()
        wait_until(lambda: service.state != "loading")
        assert len(network.runs) == 2  # warm-up: one image, then as many as run together
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"status": "ready"})
