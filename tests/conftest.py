"""What tests of several rooms share. Paddle is imported only by those that ask for it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    """Says after everything else what was not run, why, and how to get it: the reasons of the skipped tests."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    texts = (str(report.longrepr[2]).removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))
    reasons = Counter(text.removeprefix("not run: ") for text in texts)
    if reasons:
        print("not run:", *(f"{count} x {reason}" for reason, count in reasons.most_common()), sep="\n  ")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory) -> None:
    """What training remembers of files goes into a folder of the tests; the processes that they start inherit it."""
    os.environ["PPMTL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A training in the tests' own process takes the logger away from root, where caplog listens."""
    yield
    logger = logging.getLogger("ppmtl")
    logger.handlers.clear()
    logger.propagate = True


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """A folder with tiny.yml, random weights ("random"), their bundle ("bundle") and "pictures" of four sizes."""
    import cv2
    import numpy as np
    from small_model import write_bundle_of, write_model

    folder = tmp_path_factory.mktemp("exported")
    write_model(folder)
    write_bundle_of(folder / "tiny.yml", folder / "random", folder / "bundle")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (64, 96)), ("b.jpg", (90, 70)), ("c.webp", (120, 200)), ("d.png", (300, 400))):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 4)
        cv2.imwrite(str(folder / "pictures" / name), cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A folder with scenes.yml, its data, random weights ("random") and their bundle ("bundle"): see small_scenes.py."""
    from small_model import write_bundle_of
    from small_scenes import config, write_model, write_scenes

    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder)
    config(folder)
    write_model(folder)
    write_bundle_of(folder / "scenes.yml", folder / "random", folder / "bundle")
    return folder
