"""Headless Chromium at the page: what a person would do, and what the canvas then holds."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from browser import requested
from PIL import Image

# Chromium logs every refused request as an error (the page shows it in words), and dislikes how tests read the canvas
_EXPECTED = ("willReadFrequently", "the server responded with a status of", "net::ERR_INTERNET_DISCONNECTED")


class Page:
    """The page in a browser tab."""

    def __init__(self, driver: Any, address: str, folder: Path) -> None:
        self.driver, self.address, self.folder = driver, address, folder

    def open(self) -> Page:
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(self.address)
        self.until("document.getElementById('model').dataset.state")
        return self

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, expression: str, seconds: float = 10) -> Any:
        """The expression's value once it is true; looks every frame, inside the page."""
        code = """const [end, done] = [Date.now() + arguments[0], arguments[1]];
          const look = () => {
            const value = (EXPRESSION);
            if (value || Date.now() > end) done(value); else requestAnimationFrame(look);
          };
          look();"""
        self.driver.set_script_timeout(seconds + 5)
        value = self.driver.execute_async_script(code.replace("EXPRESSION", expression), 1000 * seconds)
        assert value, f"never came true: {expression}\n{self.text('status')}\n{self.text('notice')}"
        return value

    def frame(self) -> None:
        """Waits until what was asked for is painted."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def click(self, css: str) -> None:
        self.js("arguments[0].scrollIntoView({block: 'center'})", self.find(css))
        self.find(css).click()

    def text(self, name: str) -> str:
        return self.js("return document.getElementById(arguments[0]).innerText", name)

    def upload(self, path: Path, *, answered: bool = True) -> None:
        self.find("#file").send_keys(str(path))
        if answered:
            self.until(f"document.getElementById('status').innerText.startsWith('{path.name}, ')")
            self.frame()

    def notice(self) -> str:
        """The error that is shown, once there is one."""
        self.until("!document.getElementById('notice').hidden && document.getElementById('busy').hidden")
        return self.text("notice")

    def slide(self, control: str, value: float) -> None:
        code = "const e = document.querySelector(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
        self.js(code, f"[data-control='{control}']", value)
        self.frame()

    def canvas(self) -> np.ndarray:
        """What is painted, (H, W, 4) uint8."""
        self.frame()
        data = self.js("return document.getElementById('canvas').toDataURL('image/png')").split(",")[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))

    def place(self, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
        """Where pixel (x, y) of a fitted image of ``size`` (height, width) lies on the canvas, in CSS pixels."""
        wide, tall = self.js("const c = document.getElementById('canvas'); return [c.clientWidth, c.clientHeight]")
        scale = min(wide / size[1], tall / size[0])
        return (x + 0.5) * scale + (wide - size[1] * scale) / 2, (y + 0.5) * scale + (tall - size[0] * scale) / 2

    def hover(self, x: float, y: float) -> str:
        """Moves the mouse to a place on the canvas in CSS pixels; the tooltip's text comes back, "" where none is shown."""
        from selenium.webdriver import ActionChains

        canvas = self.find("#canvas")
        self.js("arguments[0].scrollIntoView({block: 'center'})", canvas)
        wide, tall = self.js("return [arguments[0].clientWidth, arguments[0].clientHeight]", canvas)
        move = ActionChains(self.driver, 0).move_to_element_with_offset
        move(canvas, round(x - wide / 2), round(y - tall / 2)).perform()
        self.frame()
        code = "const t = document.getElementById('tooltip'); return t.hidden ? '' : t.innerText.replace(/\\s+/g, ' ')"
        return self.js(code)

    def download(self, name: str) -> Path:
        """A downloaded file once it is complete."""
        from selenium.webdriver.support.wait import WebDriverWait

        path = self.folder / name
        WebDriverWait(None, 10, 0.05).until(lambda _: path.is_file() and not list(self.folder.glob("*.crdownload")))
        return path

    def errors(self) -> list[str]:
        """What the console complains about, content policy and exceptions included."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING") and not any(part in entry["message"] for part in _EXPECTED)
        ]

    def foreign_requests(self) -> list[str]:
        """Every address that the tab asked for outside the page's own origin."""
        return [url for url in requested(self.driver) if not url.startswith(self.address)]
