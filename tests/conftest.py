"""What tests of several rooms share. Paddle is imported only by those that ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """A folder with tiny.yml, random weights ("random"), their bundle ("bundle") and "pictures" of four sizes."""
    import cv2
    import numpy as np
    from small_model import write_model

    from ppmtl import cli
    from ppmtl.bundle.settings import SourceRecord
    from ppmtl.bundle.writing import Content, write_bundle
    from ppmtl.config import check, load_config
    from ppmtl.config.settings import Settings

    folder = tmp_path_factory.mktemp("exported")
    write_model(folder)
    tree = load_config(folder / "tiny.yml", [f"weights={folder / 'random'}"])
    settings = check(Settings, tree)
    tasks, model = cli.load_model(settings)
    classes = {name: task.classes for name, task in tasks.items()}
    source = SourceRecord("tiny.yml", "random", "0" * 64)
    write_bundle(
        folder / "bundle", model, Content("tiny", tree.data["tasks"], classes, settings.infer, source, "unknown")
    )
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (64, 96)), ("b.jpg", (90, 70)), ("c.webp", (120, 200)), ("d.png", (300, 400))):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 4)
        cv2.imwrite(str(folder / "pictures" / name), cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))
    return folder
