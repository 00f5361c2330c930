"""The page by keyboard, by ear, on a phone, by day and night; and that its files need no other place."""

import re

import pytest
from page_stub import PAGE, Refusal


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
