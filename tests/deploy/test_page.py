"""The service's page in headless Chromium, against a stand-in for the service that speaks its contract."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_browser import Page, chromium
from page_stub import COLOURS, MODEL, PAGE, SEG, Refusal, Stub, mask_of
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SIZE = (201, 303)  # odd, and not the canvas's shape


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def stub():
    server = Stub()
    yield server
    server.close()


@pytest.fixture(scope="module")
def driver(folder):
    with chromium(folder) as browser:
        yield browser


@pytest.fixture
def page(driver, stub, folder):
    """The page, freshly opened. Whatever a test does: no request goes elsewhere, and the console stays silent."""
    stub.reset()
    opened = Page(driver, stub.address, folder).open()
    yield opened
    assert opened.foreign_requests() == []
    assert opened.errors() == []


def written(path: Path, size: tuple[int, int] = SIZE, **options) -> Path:
    """Writes a soft gradient, so that every pixel differs a little from its neighbours."""
    pixels = np.full((*size, 3), 90, np.uint8)
    pixels[..., 0] = (np.arange(size[0]) * 200 // size[0])[:, None]
    pixels[..., 1] = np.arange(size[1]) * 200 // size[1]
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(scope="module")
def picture(folder):
    return written(folder / "street.png")


@pytest.fixture(scope="module")
def large(folder):
    return written(folder / "large.jpg", (4000, 6000))


def middle(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2 * SIZE[1], (box[1] + box[3]) / 2 * SIZE[0]


# What the stand-in finds, in shares of the picture
STOP, SMALL = (0.6, 0.2, 0.8, 0.5), (0.65, 0.25, 0.7, 0.3)


def test_an_uploaded_picture_gets_mask_boxes_class_and_timings(page, stub, picture):
    page.upload(picture)
    (asked,) = stub.asked
    assert asked["data"] == picture.read_bytes()
    assert (asked["file"], asked["tasks"], asked["tta"], asked["mask"]) == ("street.png", "seg,det,cls", "false", "rle")
    assert float(asked["threshold"]) <= 0.05  # so that the slider can go down without asking again
    assert page.text("status") == "street.png, 303 × 201: 3 classes in the mask, 2 boxes, class sedan (0.83)."
    assert "predict\n180 ms" in page.text("timings")
    assert "round trip" in page.text("timings")
    rows = page.js("return [...document.querySelectorAll('[data-table=det] tbody tr')].map(r => r.innerText)")
    assert [row.split() for row in rows] == [
        ["stop", "0.91", "182,", "40", "60", "×", "61"],
        ["speed", "limit", "0.62", "197,", "50", "15", "×", "10"],
    ]
    assert page.text("model").split() == ["stub", "1.0"]


def test_the_saved_png_is_the_picture_under_exactly_the_servers_mask(page, picture):
    page.upload(picture)
    page.slide("opacity", 1, "seg")
    for task in ("det", "cls"):
        page.click(f"[data-task={task}] .layer-switch")
    page.click("[data-task=seg] [data-index='1']")  # the sky off: the picture shows through
    page.click("#save-png")
    saved = np.asarray(Image.open(page.download("street_layers.png")).convert("RGB"))
    labels, original = mask_of(*SIZE), np.asarray(Image.open(picture))
    palette = np.zeros((256, 3), np.uint8)
    palette[:4] = COLOURS
    bare = (labels == 1) | (labels == 255)
    assert {0, 1, 2, 255} == set(np.unique(labels))
    np.testing.assert_array_equal(saved, np.where(bare[..., None], original, palette[labels]))


def test_the_screen_shows_the_mask_where_the_server_saw_it(page, picture):
    page.upload(picture)
    page.slide("opacity", 1, "seg")
    for task in ("det", "cls"):
        page.click(f"[data-task={task}] .layer-switch")
    painted, labels = page.canvas(), mask_of(*SIZE)
    for y, x in [(0, 0), (66, 150), (67, 150), (99, 100), (100, 75), (100, 74), (149, 150), (150, 150), (170, 302)]:
        across, down = page.place(x, y, SIZE)
        assert tuple(painted[int(down), int(across), :3]) == COLOURS[labels[y, x]], (x, y)


def test_layers_and_opacity_change_the_canvas(page, picture):
    page.upload(picture)
    seen = [page.canvas()]
    for task in ("seg", "det", "cls"):
        page.click(f"[data-task={task}] .layer-switch")
        seen.append(page.canvas())
        assert (seen[-1] != seen[-2]).any(), task
    for x, y in [(0, 0), (302, 200), (150, 190), (200, 55), (10, 195)]:  # nothing but the picture is left
        across, down = page.place(x, y, SIZE)
        assert np.abs(seen[-1][int(down), int(across), :3] - [y * 200 // 201, x * 200 // 303, 90]).max() <= 3, (x, y)
    page.click("[data-task=seg] .layer-switch")
    page.slide("opacity", 0.25, "seg")
    x, y = (round(v) for v in page.place(150, 190, SIZE))
    expected = 0.75 * seen[-1][y, x, :3] + 0.25 * np.array(COLOURS[0])
    assert np.abs(page.canvas()[y, x, :3] - expected).max() <= 2


def test_classes_are_switched_one_by_one_and_all_at_once(page, picture):
    page.upload(picture)
    for task in ("det", "cls"):
        page.click(f"[data-task={task}] .layer-switch")
    bare_at = tuple(round(v) for v in page.place(100, 10, SIZE))
    with_sky = page.canvas()
    page.click("[data-task=seg] [data-index='1']")
    without_sky = page.canvas()
    changed = (with_sky != without_sky).any(axis=-1)
    assert changed[bare_at[1], bare_at[0]]
    assert not changed[round(len(changed) * 0.4) :].any()  # the sky is the upper third
    assert page.hover(*page.place(30, 10, SIZE)) == ""
    page.click("[data-task=seg] .pair button:last-child")
    none = page.canvas()
    page.click("[data-task=seg] .layer-switch")
    np.testing.assert_array_equal(page.canvas(), none)
    page.click("[data-task=seg] .layer-switch")
    page.click("[data-task=seg] .pair button:first-child")
    np.testing.assert_array_equal(page.canvas(), with_sky)


def test_the_legend_names_shares_counts_and_colours_of_the_model(page, picture):
    page.upload(picture)
    rows = page.js(
        "return [...document.querySelectorAll('[data-task=seg] .legend')].map(l => l.innerText.split('\\n'))"
    )
    labels = mask_of(*SIZE)
    shares = {name: round(100 * (labels == i).mean()) for i, name in enumerate(SEG)}
    assert rows[0] == [part for name in ("road", "sky", "car") for part in (name, f"{shares[name]} %")]
    swatch = "return getComputedStyle(document.querySelector('[data-task=seg] [data-index=\"2\"] ~ .swatch')).backgroundColor"
    assert page.js(swatch) == "rgb(0, 0, 142)"
    assert "vegetation" in page.js("return document.querySelector('[data-task=seg] details').textContent")
    assert page.js("return document.querySelector('[data-task=det] .count').textContent") == "× 1"


def test_the_mouse_over_a_box_or_the_mask_shows_class_and_score(page, picture):
    page.upload(picture)
    share = round(100 * (mask_of(*SIZE) == 0).mean())
    assert page.hover(*page.place(220, 90, SIZE)) == f"stop score 0.91 road {share} % of the picture"
    inner = page.hover(*page.place(*middle(SMALL), SIZE))
    assert inner.startswith("speed limit score 0.62"), "of boxes inside each other the smaller one counts"
    assert page.hover(*page.place(30, 10, SIZE)) == "sky 33 % of the picture"
    assert page.hover(*page.place(299, 199, SIZE)) == "", "the corner is not labelled"
    page.click("[data-task=seg] .layer-switch")
    assert page.hover(*page.place(30, 10, SIZE)) == ""


def test_a_tap_shows_what_is_there(page, picture):
    page.upload(picture)
    page.js("document.getElementById('canvas').scrollIntoView({block: 'center'})")
    box = page.js("const b = document.getElementById('canvas').getBoundingClientRect(); return [b.x, b.y]")
    x, y = page.place(220, 90, SIZE)
    point = {"x": box[0] + x, "y": box[1] + y}
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.frame()
    assert page.tooltip().startswith("stop score 0.91")


def test_the_score_slider_filters_here_and_asks_nothing(page, stub, picture):
    page.upload(picture)
    count = "return document.querySelectorAll('[data-table=det] .row-button').length"
    seen = {}
    for least in (0.05, 0.5, 0.7, 1):
        page.slide("threshold", least)
        seen[least] = page.js(count)
    assert seen == {0.05: 3, 0.5: 2, 0.7: 1, 1: 0}
    assert "Lower the least score" in page.text("found")
    assert len(stub.asked) == 1
    page.slide("threshold", 0.05)
    low = page.canvas()
    page.slide("threshold", 0.4)
    changed = np.argwhere((page.canvas() != low).any(axis=-1))
    left, top = page.place(0.1 * SIZE[1], 0.7 * SIZE[0], SIZE)
    assert len(changed) > 50
    assert changed[:, 1].max() < left + 200, "only the third box and its tag went"
    assert changed[:, 0].min() > top - 30


def test_tasks_and_augmentation_are_sent_and_shown(page, stub, picture):
    page.upload(picture)
    page.click("#tasks input[value=seg]")
    page.click("#tta")
    assert page.text("run-hint") == "Changed since the last run."
    page.click("#run")
    page.until("!document.querySelector('[data-task=seg]')")
    assert (stub.asked[-1]["tasks"], stub.asked[-1]["tta"]) == ("det,cls", "true")
    assert page.text("run-hint") == ""
    page.click("#tasks input[value=det]")
    page.click("#tasks input[value=cls]")
    assert page.text("run-hint") == "Choose at least one task."
    assert not page.find("#run").is_enabled()


def test_json_is_saved_as_the_server_sent_it(page, stub, picture):
    page.upload(picture)
    page.click("#save-json")
    saved = json.loads(page.download("street.json").read_text())
    assert saved["results"] == [stub.result("street.png", picture.read_bytes(), ["seg", "det", "cls"])]


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


def test_a_large_picture_neither_freezes_the_page_nor_moves_its_results(page, large):
    size = (4000, 6000)
    page.js(
        "window.longest = 0; const note = e => { longest = Math.max(longest, e.duration) };"
        "new PerformanceObserver(l => l.getEntries().forEach(note)).observe({type: 'longtask'})"
    )
    page.upload(large)
    assert page.canvas().shape[1] < 2000, "the canvas is as large as the screen, not as the picture"
    assert page.hover(*page.place(4200, 1700, size)).startswith("stop score 0.91")
    page.click("[data-table=det] tbody tr:nth-child(2) .row-button")  # zooms in on the small one
    page.frame()
    wide, tall = page.js("const c = document.getElementById('canvas'); return [c.clientWidth, c.clientHeight]")
    assert page.hover(wide / 2, tall / 2).startswith("speed limit score 0.62")
    assert int(page.text("zoom-value").split()[0]) > 30
    for control, value in (("opacity", 0.3), ("opacity", 0.9)):
        page.slide(control, value, "seg")
    assert page.js("return window.longest") < 1500, "milliseconds; the two cores are shared while the tests run"
    page.click("#save-png")
    with Image.open(page.download("large_layers.png")) as saved:
        assert saved.size[0] * saved.size[1] <= 2**24
        assert saved.size[0] / saved.size[1] == pytest.approx(1.5, abs=0.001)
    assert "Saved at" in page.text("status")


def test_zoom_and_pan_keep_results_in_place(page, picture):
    page.upload(picture)
    fitted = page.canvas()
    page.click("[data-table=det] tbody tr:nth-child(2) .row-button")
    wide, tall = page.js("const c = document.getElementById('canvas'); return [c.clientWidth, c.clientHeight]")
    assert (page.canvas() != fitted).any()
    assert page.hover(wide / 2, tall / 2).startswith("speed limit")
    from selenium.webdriver import ActionChains

    ActionChains(page.driver, 0).click_and_hold(page.find("#canvas")).move_by_offset(
        -round(wide * 0.4), 0
    ).release().perform()
    assert page.hover(wide / 2, tall / 2).startswith("stop"), "dragged away; the large box around it is still there"
    assert page.hover(wide * 0.1, tall / 2).startswith("speed limit")
    page.click("#zoom-fit")
    np.testing.assert_array_equal(page.canvas(), fitted)
    across, down = page.place(*middle(SMALL), SIZE)
    page.hover(across, down)
    wheel = """const c = document.getElementById('canvas'), b = c.getBoundingClientRect(), [x, y, ctrlKey] = arguments;
      c.dispatchEvent(new WheelEvent('wheel', {deltaY: -400, ctrlKey, clientX: b.x + x, clientY: b.y + y, cancelable: true}))"""
    zoom = page.text("zoom-value")
    page.js(wheel, across, down, False)
    assert page.text("zoom-value") == zoom, "a plain wheel scrolls the page"
    for _ in range(3):
        page.js(wheel, across, down, True)
        assert page.hover(across, down).startswith("speed limit"), "what is under the mouse stays there"
    page.click("#zoom-fit")
    for _ in range(3):
        page.click("#zoom-in")
    assert int(page.text("zoom-value").split()[0]) > 250
    for _ in range(3):
        page.click("#zoom-out")
    np.testing.assert_array_equal(page.canvas(), fitted)


def test_a_change_of_the_windows_size_leaves_no_blank_picture(page, picture):
    page.upload(picture)
    code = """const done = arguments[0]; window.requestAnimationFrame = () => 0;  // only what is painted at once counts
      document.getElementById('stage').style.width = '500px';
      setTimeout(() => { const c = document.getElementById('canvas');
        done([c.width, Math.max(...c.getContext('2d').getImageData(250, 100, 1, 1).data)]); }, 300)"""
    assert page.driver.execute_async_script(code) == [500, 255]


def test_tags_of_boxes_out_of_view_are_not_painted(page, picture):
    page.upload(picture)
    for task in ("seg", "cls"):
        page.click(f"[data-task={task}] .layer-switch")
    page.slide("threshold", 0.05)
    page.click("[data-task=det] [data-index='0']")
    page.click("[data-table=det] tbody tr:nth-child(2) .row-button")  # now the other one is above the view
    painted = page.canvas()[..., :3].astype(int)
    seen = [(np.abs(painted - colour).max(axis=-1) < 3).sum() > 20 for colour in COLOURS[:3]]
    assert seen == [False, False, True]


def test_a_picture_can_be_dropped_and_pasted(page, stub, picture):
    code = """const [kind, bytes] = arguments; const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], kind + '.png', {type: 'image/png'}));
      const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
      document.getElementById('stage').dispatchEvent(event)"""
    for kind in ("drop", "paste"):
        page.js(code, kind, list(picture.read_bytes()))
        page.until(f"document.getElementById('status').innerText.startsWith('{kind}.png, 303')")
    assert [asked["file"] for asked in stub.asked] == ["drop.png", "paste.png"]


def test_a_photo_turned_by_its_camera_lies_as_the_server_sees_it(page, folder):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    page.upload(written(folder / "turned.jpg", (120, 300), exif=turned))
    assert "120 × 300" in page.text("status")


def test_the_picture_chosen_last_wins_and_a_run_can_be_cancelled(page, stub, picture, large, folder):
    page.js(
        "window.said = []; const status = document.getElementById('status');"
        "new MutationObserver(() => said.push(status.textContent)).observe(status, {childList: true})"
    )
    stub.delay = 0.5
    page.upload(written(folder / "first.png", (100, 150)), answered=False)
    page.until("!document.getElementById('busy').hidden")
    page.upload(picture)
    assert page.text("status").startswith("street.png, 303")
    assert not any("Cancelled" in words or words.startswith("first.png, ") for words in page.js("return said"))
    stub.delay = 0.2
    page.upload(large, answered=False)  # takes longer to open than the next
    page.upload(picture)
    time.sleep(0.5)
    assert page.text("status").startswith("street.png, 303")
    assert {asked["file"] for asked in stub.asked} == {"first.png", "street.png"}
    stub.delay = 0.5
    page.click("#run")
    page.until("!document.getElementById('busy').hidden")
    page.click("#cancel")
    page.until("document.getElementById('busy').hidden")
    assert "Cancelled" in page.text("status")
    assert not page.find("#notice").is_displayed()


def test_everything_is_done_by_keyboard_alone(page):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(page.driver, 0).send_keys(*keys).perform()

    def tab_to(css: str) -> None:
        for _ in range(60):
            press(Keys.TAB)
            name, outline = page.js(
                "const e = document.activeElement, s = n => getComputedStyle(n);"
                "const ring = n => s(n).outlineStyle !== 'none' && parseFloat(s(n).outlineWidth) >= 2;"
                "return [e.id || e.className || e.tagName, ring(e) || ring(e.closest('label') || e)]"
            )
            assert outline or name == "BODY", f"no visible focus on {name}"
            if page.js("return document.activeElement.matches(arguments[0])", css):
                return
        raise AssertionError(f"{css} cannot be reached")

    press(Keys.TAB)
    assert page.js("return document.activeElement.className") == "skip"
    tab_to(".example")
    press(Keys.ENTER)
    page.until("document.querySelector('[data-table=det]')")
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    tab_to("#canvas")
    assert page.find("#keys").is_displayed()
    press(Keys.ARROW_LEFT)
    first = page.tooltip()
    press(*[Keys.ARROW_UP] * 12)
    assert first
    assert page.tooltip() != first, "the probe has moved to something else"
    page.until("document.getElementById('spoken').textContent.includes(' at ')")
    page.until("document.getElementById('spoken').textContent.includes('of the picture')")
    zoom = page.text("zoom-value")
    press("+")
    assert page.text("zoom-value") != zoom
    press("0")
    assert page.text("zoom-value") == zoom
    press(Keys.ESCAPE)
    assert page.tooltip() == ""
    tab_to("[data-table=det] .row-button")
    assert page.tooltip() == "stop score 0.91"
    tab_to("[data-task=seg] .layer-switch")
    before = page.canvas()
    press(Keys.SPACE)
    assert (page.canvas() != before).any()
    press(Keys.SPACE)
    tab_to("[data-task=seg] [data-control=opacity]")
    press(Keys.HOME)
    assert page.js("return document.activeElement.getAttribute('aria-valuetext')") == "0 %"
    tab_to("[data-task=seg] [data-index]")
    press(Keys.SPACE)
    assert page.js("return document.activeElement.checked") is False


def test_every_control_has_a_name_and_the_outcome_is_announced(page, picture):
    page.upload(picture)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "checkbox", "slider", "textbox", "application", "table", "link", "image"}
    named = [
        (n["role"]["value"], n.get("name", {}).get("value"))
        for n in nodes
        if not n["ignored"] and n["role"]["value"] in roles
    ]
    assert len(named) > 25
    assert [role for role, name in named if not name] == []
    assert ("slider", "Mask: opacity") in named
    assert {"Zoom", "Download", "Mask: classes"} <= {n["name"]["value"] for n in nodes if "name" in n}
    assert ("table", "Mask: shares of the picture") in named
    live = page.js(
        "return ['status', 'notice', 'spoken'].map(i => document.getElementById(i)).map(e => e.role || e.ariaLive)"
    )
    assert live == ["status", "alert", "polite"]


@pytest.mark.parametrize("touch", [False, True])
def test_on_a_phone_nothing_sticks_out_and_everything_can_be_hit(page, stub, picture, touch):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": touch}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.open()
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert page.js(overflow) <= 0
        page.upload(picture)
        assert page.js(overflow) <= 0
        page.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
        stub.next = [Refusal(422, "broken", "x" * 200)]
        page.click("#run")
        page.notice()
        assert page.js(overflow) <= 0
        small = page.js(
            "return [...document.querySelectorAll('button, summary, label, input, a')].filter(e => e.checkVisibility())"
            ".filter(e => !e.closest('.skip')).map(e => [e.closest('label') || e, e])"
            ".map(([e, own]) => [own.id || own.className || own.name, e.getBoundingClientRect()])"
            ".filter(([, r]) => r.width < 44 || r.height < 44)"
        )
        assert small == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page, stub, picture, scheme):
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.upload(picture)
        stub.next = [Refusal(422)]
        page.click("#run")
        page.notice()
        poor = page.js(
            """const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
            const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
              return [...canvas.getImageData(0, 0, 1, 1).data]; };
            const lum = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
              .reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
            const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
              if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
            const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), out = [];
            for (let n; (n = walk.nextNode());) { const e = n.parentElement;
              if (!n.textContent.trim() || !e.checkVisibility() || e.closest('.skip, :disabled')) continue;
              const [a, b] = [lum(rgba(getComputedStyle(e).color)), lum(behind(e))].sort((x, y) => y - x);
              const ratio = (a + .05) / (b + .05); if (ratio < 4.5) out.push([n.textContent.trim(), ratio]); }
            return out"""
        )
        assert poor == []
        red = int(re.search(r"\d+", page.js("return getComputedStyle(document.body).backgroundColor"))[0])
        assert (red < 128) == (scheme == "dark")
        assert page.js("return document.getAnimations().length") == 0
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_files_of_the_page_name_no_other_place_and_nothing_inline():
    files = [path for path in PAGE.iterdir() if path.suffix in (".html", ".js", ".css")]
    assert len(files) >= 9
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?:|//cdn|@import|eval\(|innerHTML|new Function", text), path
        assert len(text.splitlines()) <= 400, path
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src=)", index)


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


@pytest.fixture(scope="module")
def service():
    """Yields the address of the real service with a made-up network; it holds one picture at a time for half a second."""
    pytest.importorskip("fastapi", reason="needs requirements-serving.txt")
    flags = ["--slow=0.5", "--queue_size=1", "--max_images=1", "--max_pixels=30000000"]
    command = [sys.executable, str(Path(__file__).parent / "serving_fakes.py"), *flags]
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
