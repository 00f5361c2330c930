"""The page served by the real service with a made-up network."""

import json

import numpy as np
import pytest
from page_browser import Page
from PIL import Image
from serving_process import FAKES, serving


@pytest.fixture(scope="module")
def address():
    with serving(FAKES, "--max_pixels", 30_000_000) as server:
        yield server.url


def test_the_real_service_serves_the_page_and_its_answers_are_shown(driver, address, folder):
    page = Page(driver, address, folder).open()
    assert page.text("model").split() == ["fake", "1"]
    Image.fromarray(np.full((60, 80, 3), (10, 10, 220), np.uint8)).save(folder / "real.png")
    page.upload(folder / "real.png")
    assert page.text("status").startswith("real.png, 80 × 60: ")
    assert page.hover(*page.place(40, 50, (60, 80))).startswith("blue ")  # the fake's classes are the image's colours
    page.click("#save-json")
    saved = json.loads(page.download("real.json").read_text())
    assert saved["results"][0]["seg"]["mask"]["encoding"] == "rle"
    Image.new("RGB", (60, 80)).save(folder / "other.gif")
    page.upload(folder / "other.gif", answered=False)
    assert "It takes JPEG, PNG, WEBP, BMP" in page.notice()
    assert "other.gif: the file's first bytes" in page.notice()
    assert page.foreign_requests() == []
    assert page.errors() == []


def test_a_photo_turned_by_its_camera_lies_as_the_server_sees_it(driver, address, folder):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.new("RGB", (300, 120)).save(folder / "turned.jpg", exif=turned)
    page = Page(driver, address, folder).open()
    page.upload(folder / "turned.jpg")
    assert "120 × 300" in page.text("status")
    page.click("#save-json")
    assert json.loads(page.download("turned.json").read_text())["results"][0]["height"] == 300
