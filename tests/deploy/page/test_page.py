"""The service's page in headless Chromium, against a stand-in for the service that speaks its contract."""

import json
import re

import numpy as np
from page_stub import COLOURS, DET, MODEL, PAGE, SEG, SIZE, instance_masks, instances, mask_of, refusal, task, written
from PIL import Image
from starlette.responses import HTMLResponse

INNER = (0.675 * SIZE[1], 0.275 * SIZE[0])  # inside the small box that lies in the large one


def only_the_mask(page):
    page.slide("opacity", 1)
    for name in ("det", "cls"):
        page.click(f"[data-task={name}] .layer-switch")


def test_an_uploaded_image_gets_mask_boxes_class_and_timings(page, stub, image):
    page.upload(image)
    (asked,) = stub.asked
    assert asked["data"] == image.read_bytes()
    assert (asked["file"], asked["tasks"], asked["tta"], asked["mask"]) == ("street.png", "seg,cls,det", "false", "rle")
    assert float(asked["threshold"]) <= 0.05  # so that the slider can go down without asking again
    assert page.text("status") == "street.png, 303 × 201: 3 classes in the mask, 2 boxes, class sedan (0.83)."
    assert "predict 180 ms · total 185 ms · round trip" in page.text("timings")
    rows = page.js("return [...document.querySelectorAll('[data-table=det] tbody tr')].map(r => r.innerText)")
    assert [row.split() for row in rows] == [
        ["stop", "0.91", "182,", "40", "60", "×", "61"],
        ["speed", "limit", "0.62", "197,", "50", "15", "×", "10"],
    ]
    assert page.text("model").split() == ["stub", "1.0"]
    legend = page.js("return document.querySelector('[data-task=seg] .legend').innerText.split('\\n')")
    shares = {name: f"{round(100 * (mask_of(*SIZE) == i).mean())} %" for i, name in enumerate(SEG)}
    assert legend == [part for name in ("road", "sky", "car") for part in (name, shares[name])]


def test_a_task_of_an_unknown_type_is_drawn_by_what_its_answer_holds(page, stub, image):
    stub.model = MODEL | {"tasks": {"words": task("captioning"), "parts": task("instances", SEG)}}
    page.open()
    page.upload(image)
    assert page.text("status").endswith("3 classes in the mask, 2 boxes, “a red car”.")
    assert page.text("layers").startswith("Instances")
    assert "a red car" in page.text("found")
    assert page.hover(*page.place(220, 90, SIZE)).startswith("stop score 0.91 road")


def test_objects_are_shown_by_exactly_their_pixels_and_hidden_by_score_and_class(page, stub, image):
    stub.model = MODEL | {"tasks": {"things": task("instances", DET)}}
    page.open()
    page.upload(image)
    assert page.text("status").endswith("2 boxes.")
    found = """const [shown, {things}] = arguments; const {runEnds, paintObjects} = await import("/page/objects.js");
      const objects = things.map((thing, i) => ({ends: runEnds(thing.segmentation.counts), tone: [i + 1, 0, 0]}));
      const canvas = paintObjects(objects.filter((_, i) => shown.includes(i)), {width: SIZE[1], height: SIZE[0]});
      return [...canvas.getContext("2d").getImageData(0, 0, SIZE[1], SIZE[0]).data].filter((_, i) => i % 4 === 0);"""
    ring, block = instance_masks(*SIZE)
    code = found.replace("SIZE[0]", str(SIZE[0])).replace("SIZE[1]", str(SIZE[1]))
    for shown, expected in (([0], ring), ([1], 2 * block), ([0, 1], np.where(ring, 1, 2 * block))):
        painted = page.js(f"return (async () => {{{code}}})()", shown, {"things": instances(*SIZE)[:2]})
        np.testing.assert_array_equal(np.reshape(painted, SIZE), expected)
    inside, hole = page.place(110, 60, SIZE), page.place(160, 70, SIZE)
    assert page.hover(*inside).startswith("stop score 0.90")
    assert page.hover(*hole).startswith("speed limit score 0.70"), "the block shows through the hole of the ring"
    page.hover(*page.place(20, 150, SIZE))  # nothing is highlighted there
    seen = page.canvas()
    page.slide("threshold", 0.8)
    (x, y), after = page.place(250, 150, SIZE), page.canvas()
    assert tuple(after[int(y), int(x)]) != tuple(seen[int(y), int(x)]), "the block is gone"
    assert tuple(after[int(inside[1]), int(inside[0])]) == tuple(seen[int(inside[1]), int(inside[0])])
    page.click("[data-task=things] [data-index='0']")
    assert (page.canvas()[int(inside[1]), int(inside[0])] != after[int(inside[1]), int(inside[0])]).any()


def test_the_sentence_stands_under_the_image_and_in_the_saved_png(page, stub, folder):
    stub.model = MODEL | {"tasks": {"words": task("captions")}}
    page.open()
    image = written(folder / "words.png")
    page.upload(image)
    assert page.text("sentence") == "a red car"
    assert page.js("return document.querySelectorAll('[data-task=words] [data-control=opacity]').length") == 0
    page.click("#save-png")
    saved, original = (
        np.asarray(Image.open(page.download("words_layers.png")).convert("RGB")),
        np.asarray(Image.open(image)),
    )
    np.testing.assert_array_equal(saved[: SIZE[0]], original)
    strip = saved[SIZE[0] :]
    assert 20 < len(strip) < 60
    assert strip.min() < 100
    assert strip.max() == 255
    page.click("[data-task=words] .layer-switch")
    assert not page.find("#sentence").is_displayed()


def test_screen_and_saved_png_show_exactly_the_servers_mask(page, image):
    page.upload(image)
    only_the_mask(page)
    page.click("[data-task=seg] [data-index='1']")  # the sky off: the image shows through
    page.click("#save-png")
    saved = np.asarray(Image.open(page.download("street_layers.png")).convert("RGB"))
    labels, original = mask_of(*SIZE), np.asarray(Image.open(image))
    palette = np.zeros((256, 3), np.uint8)
    palette[:4] = COLOURS
    bare = (labels == 1) | (labels == 255)
    assert {0, 1, 2, 255} == set(np.unique(labels))
    np.testing.assert_array_equal(saved, np.where(bare[..., None], original, palette[labels]))
    painted = page.canvas()
    for y, x in [(67, 150), (99, 100), (100, 75), (100, 74), (150, 150), (170, 302)]:
        across, down = page.place(x, y, SIZE)
        assert tuple(painted[int(down), int(across), :3]) == COLOURS[labels[y, x]], (x, y)


def test_layers_and_classes_are_switched_one_by_one_and_all_at_once(page, image):
    page.upload(image)
    seen = [page.canvas()]
    for name in ("det", "cls"):
        page.click(f"[data-task={name}] .layer-switch")
        seen.append(page.canvas())
        assert (seen[-1] != seen[-2]).any(), name
    page.click("[data-task=seg] [data-index='1']")
    changed = (page.canvas() != seen[-1]).any(axis=-1)
    assert changed.any()
    assert not changed[round(len(changed) * 0.4) :].any()  # the sky is the upper third
    assert page.hover(*page.place(30, 10, SIZE)) == ""
    page.click("[data-task=seg] .pair button:last-child")
    none = page.canvas()
    page.click("[data-task=seg] .layer-switch")
    np.testing.assert_array_equal(page.canvas(), none)
    page.click("[data-task=seg] .layer-switch")
    page.click("[data-task=seg] .pair button:first-child")
    np.testing.assert_array_equal(page.canvas(), seen[-1])


def test_the_mouse_over_a_box_or_the_mask_shows_class_and_score(page, image):
    page.upload(image)
    share = round(100 * (mask_of(*SIZE) == 0).mean())
    assert page.hover(*page.place(220, 90, SIZE)) == f"stop score 0.91 road {share} % of the image"
    assert page.hover(*page.place(*INNER, SIZE)).startswith("speed limit score 0.62"), "the smaller of two counts"
    assert page.hover(*page.place(30, 10, SIZE)) == "sky 33 % of the image"
    assert page.hover(*page.place(299, 199, SIZE)) == "", "the corner is not labelled"
    page.click("[data-task=seg] .layer-switch")
    assert page.hover(*page.place(30, 10, SIZE)) == ""


def test_the_score_slider_filters_here_and_asks_nothing(page, stub, image):
    page.upload(image)
    seen = {}
    for least in (0.05, 0.5, 0.7, 1):
        page.slide("threshold", least)
        seen[least] = page.js("return document.querySelectorAll('[data-table=det] .row-button').length")
    assert seen == {0.05: 3, 0.5: 2, 0.7: 1, 1: 0}
    assert "Lower the least score" in page.text("found")
    assert len(stub.asked) == 1


def test_tasks_and_augmentation_are_sent_and_the_json_is_saved_as_the_server_sent_it(page, stub, image):
    page.upload(image)
    page.click("#tasks input[value=seg]")
    page.click("#tta")
    assert page.text("run-hint") == "Changed since the last run."
    page.click("#run")
    page.until("!document.querySelector('[data-task=seg]')")
    assert (stub.asked[-1]["tasks"], stub.asked[-1]["tta"]) == ("cls,det", "true")
    page.click("#save-json")
    assert set(json.loads(page.download("street.json").read_text())["results"][0]) >= {"file", "cls", "det"}
    page.click("#tasks input[value=det]")
    page.click("#tasks input[value=cls]")
    assert page.text("run-hint") == "Choose at least one task."
    assert not page.find("#run").is_enabled()


def test_zoom_and_pan_keep_results_in_place(page, image):
    from selenium.webdriver import ActionChains

    page.upload(image)
    fitted = page.canvas()
    page.click("[data-table=det] tbody tr:nth-child(2) .row-button")
    wide, tall = page.js("const c = document.getElementById('canvas'); return [c.clientWidth, c.clientHeight]")
    assert page.hover(wide / 2, tall / 2).startswith("speed limit")
    drag = ActionChains(page.driver, 0).click_and_hold(page.find("#canvas")).move_by_offset(-round(wide * 0.4), 0)
    drag.release().perform()
    assert page.hover(wide / 2, tall / 2).startswith("stop"), "dragged away; the large box around it is still there"
    assert page.hover(wide * 0.1, tall / 2).startswith("speed limit")
    page.click("#zoom-fit")
    np.testing.assert_array_equal(page.canvas(), fitted)
    for _ in range(3):
        page.click("#zoom-in")
    assert int(page.text("zoom-value").split()[0]) > 250
    for _ in range(3):
        page.click("#zoom-out")
    np.testing.assert_array_equal(page.canvas(), fitted)


def test_an_image_can_be_dropped_and_pasted(page, stub, image):
    code = """const [kind, bytes] = arguments; const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], kind + '.png', {type: 'image/png'}));
      const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
      document.getElementById('stage').dispatchEvent(event)"""
    for kind in ("drop", "paste"):
        page.js(code, kind, list(image.read_bytes()))
        page.until(f"document.getElementById('status').innerText.startsWith('{kind}.png, 303')")
    assert [asked["file"] for asked in stub.asked] == ["drop.png", "paste.png"]


def test_the_image_chosen_last_wins_and_a_run_can_be_cancelled(page, stub, image, folder):
    stub.delay = 0.5
    page.upload(written(folder / "first.png", (100, 150)), answered=False)
    page.until("!document.getElementById('busy').hidden")
    page.upload(image)
    assert page.text("status").startswith("street.png, 303")
    page.click("#run")
    page.until("!document.getElementById('busy').hidden")
    page.click("#cancel")
    page.until("document.getElementById('busy').hidden")
    assert "Cancelled" in page.text("status")
    assert not page.find("#notice").is_displayed()


def test_a_refusal_is_explained_in_place(page, stub, image):
    words = {400: "Change what you ask for", 413: "up to 20 MB", 415: "It takes JPEG, PNG", 500: "Request r-7"}
    for status, todo in words.items():
        stub.next = [refusal(status)]
        page.upload(image, answered=False)
        notice = page.notice()
        assert todo in notice
        assert "as the server puts it" in notice
        assert page.find("#save-json").is_enabled() is False


def test_a_server_that_is_away_broken_or_busy_is_explained_and_asked_again(page, stub, image):
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    page.upload(image, answered=False)
    assert "The server does not answer" in page.notice()
    assert page.canvas()[..., 3].any(), "the image stays in view"
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    stub.next = [HTMLResponse("Bad gateway", 502), refusal(429, {"Retry-After": "1"})]
    page.click("#notice button")
    page.until("document.getElementById('notice').innerText.includes('Something went wrong in the server')")
    page.click("#notice button")
    page.until("document.getElementById('notice').innerText.includes('The server is busy')")
    assert not page.find("#notice button").is_enabled()
    page.until("!document.querySelector('#notice button').disabled", 3)
    page.click("#notice button")
    page.until("document.querySelector('[data-table=det]')")


def test_a_key_is_asked_for_only_when_the_server_wants_one_and_is_stored_nowhere(page, stub, image):
    assert not page.find("#key-form").is_displayed()
    stub.key = "s3cret"
    page.upload(image, answered=False)
    assert "API key" in page.notice()
    page.find("#key").send_keys("wrong\n")
    page.until("!document.getElementById('key-form').hidden && document.getElementById('key').value === ''")
    page.find("#key").send_keys("s3cret\n")
    page.until("document.querySelector('[data-table=det]')")
    kept = page.js("return [document.cookie, localStorage.length, sessionStorage.length, location.search]")
    assert kept == ["", 0, 0, ""]
    page.driver.refresh()
    assert "API key" in page.notice(), "the key was in memory only"


def test_what_the_browser_cannot_show_is_not_uploaded(page, stub, folder):
    (folder / "notes.jpg").write_text("no image")
    page.upload(folder / "notes.jpg", answered=False)
    assert "This browser cannot show that file" in page.notice()
    assert stub.asked == []


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(page.driver, 0).send_keys(*keys).perform()

    def tab_to(css: str) -> None:
        for _ in range(60):
            press(Keys.TAB)
            if page.js("return document.activeElement.matches(arguments[0])", css):
                return
        raise AssertionError(f"{css} cannot be reached")

    tab_to(".example")
    press(Keys.ENTER)
    page.until("document.querySelector('[data-table=det]')")
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    tab_to("#canvas")
    zoom = page.text("zoom-value")
    press("+")
    assert page.text("zoom-value") != zoom
    press("0")
    assert page.text("zoom-value") == zoom
    for control in ("[data-table=det] .row-button", "[data-task=seg] .layer-switch", "[data-task=seg] [data-index]"):
        tab_to(control)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "checkbox", "slider", "textbox", "application", "table", "link", "image"}
    nodes = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(nodes) > 25
    assert [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")] == []


def test_the_files_of_the_page_name_no_other_place_and_nothing_inline():
    files = [path for path in PAGE.iterdir() if path.suffix in (".html", ".js", ".css")]
    assert len(files) >= 8
    for path in files:
        assert not re.search(r"https?:|//cdn|@import|eval\(|innerHTML|new Function", path.read_text("utf-8")), path
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src=)", index)
    named = re.findall(r'data-src="page/examples/([^"]+)"', index)
    assert sorted(named) == sorted(path.name for path in (PAGE / "examples").iterdir())
