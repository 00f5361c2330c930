"""The page served by the real service with a made-up network; its examples."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_browser import Page
from page_stub import PAGE
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def service():
    """Yields the address of the real service with a made-up network; it holds one picture at a time for half a second."""
    pytest.importorskip("fastapi", reason="needs requirements-serving.txt")
    flags = ["--slow=0.5", "--queue_size=1", "--max_images=1", "--max_pixels=30000000"]
    command = [sys.executable, str(ROOT / "tests/deploy/serving_fakes.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            events = {}
            for line in process.stdout:
                entry = json.loads(line)
                events[entry["event"]] = entry
                if {"listening", "ready"} <= set(events):
                    break
            assert {"listening", "ready"} <= set(events), events
            yield events["listening"]["url"]
        finally:
            process.terminate()


def test_the_real_service_serves_the_page_and_its_answers_are_shown(driver, service, folder):
    page = Page(driver, service, folder).open()
    assert page.text("model").split() == ["fake", "1"]
    Image.fromarray(np.full((60, 80, 3), (10, 10, 220), np.uint8)).save(folder / "real.png")
    page.upload(folder / "real.png")
    assert page.text("status").startswith("real.png, 80 × 60: ")
    assert page.hover(*page.place(40, 50, (60, 80))).startswith("blue ")  # the fake's classes are the picture's colours
    page.click("#save-json")
    saved = json.loads(page.download("real.json").read_text())
    assert saved["results"][0]["seg"]["mask"]["encoding"] == "rle"
    Image.new("RGB", (60, 80)).save(folder / "other.gif")
    page.find("#file").send_keys(str(folder / "other.gif"))
    assert "It takes JPEG, PNG, WEBP, BMP" in page.notice()
    assert "other.gif: the file's first bytes" in page.notice()
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")  # 4 MB: refused before the upload has ended
    page.js(
        """const busy = async () => { const blob = await (await fetch('page/examples/vehicle.jpg')).blob();
          for (window.going = true; window.going;) { const form = new FormData(); form.append('images', blob, 'a.jpg');
            await fetch('v1/predict', {method: 'POST', body: form}); } };
        busy(); busy()"""
    )
    for _ in range(5):  # now and then the page's own request finds the one free place
        page.find("#file").send_keys(str(folder / "noise.png"))
        page.until(
            "/busy/.test(document.getElementById('notice').innerText)"
            "|| /^noise.png, /.test(document.getElementById('status').innerText)"
        )
        if "busy" in page.text("notice"):
            break
    page.js("window.going = false")
    assert page.text("notice").startswith("The server is busy")
    assert page.foreign_requests() == []
    assert page.errors() == []


def test_the_examples_are_what_the_generator_draws_and_small(tmp_path):
    sys.path.insert(0, str(ROOT / "tools"))
    from make_page_examples import MAX_BYTES, write_examples

    drawn = {path.name: path for path in write_examples(tmp_path)}
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    assert sorted(drawn) == sorted(path.name for path in (PAGE / "examples").iterdir())
    assert sorted(drawn) == sorted(re.findall(r'data-src="page/examples/([^"]+)"', index))
    for name, path in drawn.items():
        committed = PAGE / "examples" / name
        assert committed.stat().st_size < MAX_BYTES == 100_000
        new, old = (cv2.imread(str(p)).astype(int) for p in (path, committed))
        assert np.abs(new - old).mean() < 1, name  # another JPEG encoder may round otherwise
