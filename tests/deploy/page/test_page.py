"""The service's page in headless Chromium, against a stand-in for the service that speaks its contract."""

import json
import time

import numpy as np
import pytest
from page_pictures import SIZE, SMALL, middle, written
from page_stub import COLOURS, SEG, mask_of
from PIL import Image


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
