"""What the page says when a picture cannot be predicted, and what it offers then."""

import cv2
import numpy as np
import pytest
from page_pictures import written
from page_stub import MODEL, Refusal


@pytest.mark.parametrize(
    "status, headers, title, todo",
    [
        (400, {}, "does not accept these settings", "Change what you ask for"),
        (408, {}, "upload took too long", "Try again"),
        (413, {}, "too large", "20 MB"),
        (415, {}, "does not take this kind of file", "JPEG, PNG"),
        (422, {}, "cannot read this picture", "save it again"),
        (429, {"Retry-After": "1"}, "is busy", "Try again in 1 s"),
        (500, {}, "Something went wrong", "Request r-7"),
        (503, {"Retry-After": "1"}, "not ready", "Try again in 1 s"),
        (504, {}, "took too long", "fewer tasks"),
    ],
)
def test_a_refusal_is_explained_in_place(page, stub, picture, status, headers, title, todo):
    stub.next = [Refusal(status, "some_code", "as the server puts it", headers)] * 9  # browsers repeat after a 408
    page.upload(picture, answered=False)
    notice = page.notice()
    assert title in notice
    assert todo in notice
    assert "as the server puts it" in notice
    assert page.find("#notice").get_attribute("role") == "alert"
    assert page.find("#save-json").is_enabled() is False


def test_after_a_busy_server_one_tries_again_when_it_said(page, stub, picture):
    stub.next = [Refusal(429, "queue_full", "wait", {"Retry-After": "1"})]
    page.upload(picture, answered=False)
    page.notice()
    button = page.find("#notice button")
    assert not button.is_enabled()
    page.until("!document.querySelector('#notice button').disabled", 3)
    button.click()
    page.until("document.querySelector('[data-table=det]')")
    assert not page.find("#notice").is_displayed()


def test_an_answer_that_is_not_the_services_is_no_riddle(page, stub, picture):
    stub.next = [Refusal(502, body=b"<html>Bad gateway</html>"), Refusal(200, body=b"<html>Hello</html>")]
    for _ in range(2):
        page.upload(picture, answered=False)
        assert "Something went wrong in the server" in page.notice()


def test_a_server_that_is_away_keeps_the_picture_for_another_try(page, stub, picture):
    stub.hangs_up = ("GET", "POST")
    page.upload(picture, answered=False)
    assert "The server does not answer" in page.notice()
    assert page.canvas()[..., 3].any(), "the picture stays in view"
    stub.hangs_up = ("POST",)
    page.click("#notice button")
    page.until("document.getElementById('notice').innerText.includes('closed the connection during the upload')")
    stub.hangs_up = ()
    page.click("#notice button")
    page.until("document.querySelector('[data-table=det]')")


def test_a_key_is_asked_for_only_when_the_server_wants_one_and_is_stored_nowhere(page, stub, picture):
    assert not page.find("#key-form").is_displayed()
    stub.key = "s3cret"
    page.upload(picture, answered=False)
    assert "API key" in page.notice()
    page.find("#key").send_keys("wrong\n")
    page.until("!document.getElementById('key-form').hidden && document.getElementById('key').value === ''")
    page.find("#key").send_keys("s3cret\n")
    page.until("document.querySelector('[data-table=det]')")
    assert not page.find("#key-form").is_displayed()
    assert page.js("return [document.cookie, localStorage.length, sessionStorage.length, location.search]") == [
        "",
        0,
        0,
        "",
    ]
    page.driver.refresh()
    assert "API key" in page.notice(), "the key was in memory only"
    page.find("#key").send_keys("s3cret\n")
    page.until("document.getElementById('model').dataset.state === 'ready'")


def test_a_file_that_is_no_picture_is_refused_here(page, stub, folder):
    file = folder / "notes.jpg"
    file.write_text("no picture")
    page.upload(file, answered=False)
    assert "This browser cannot show that file" in page.notice()
    assert stub.asked == []


def test_what_the_server_would_refuse_is_not_uploaded_and_a_smaller_copy_is_offered(page, stub, folder):
    stub.model = {**MODEL, "limits": {**MODEL["limits"], "max_pixels": 40_000, "max_bytes": 30_000}}
    try:
        page.open()
        page.upload(written(folder / "wide.png", (300, 500)), answered=False)
        assert "0.2 megapixels" in page.notice()
        assert stub.asked == []
        page.click("#notice button.primary")
        page.until("document.querySelector('[data-table=det]')")
        height, width = cv2.imdecode(np.frombuffer(stub.asked[0]["data"], np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert height * width <= 40_000 < 1.1 * height * width
        assert width / height == pytest.approx(5 / 3, rel=0.02)
        assert stub.asked[0]["file"] == "wide_smaller.jpg"
    finally:
        stub.model = MODEL
