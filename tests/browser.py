"""Headless Chromium for tests of pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MISSING = (
    "not run: the page in a browser (needs chromium and chromium-driver: apt-get install chromium chromium-driver)"
)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1300,900",
          "--force-device-scale-factor=1")  # fmt: skip
_PROGRAMS = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """Yields a driver whose downloads go to ``folder``; skips the test where the browser or its driver is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="not run: the page in a browser (needs selenium)")
    found = [next(filter(None, map(shutil.which, names)), None) for names in _PROGRAMS]
    if None in found:
        pytest.skip(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    try:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
        yield driver
    finally:
        driver.quit()


def requested(driver: Any) -> list[str]:
    """Every address that the tab asked for since the last call, apart from what a page carries inside itself."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("blob:", "data:", "about:"))]
