"""What tests of several rooms share. Paddle is imported only by those that ask for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "_base_": str(ROOT / "configs" / "allinone_demo.yml"),
    "classes": {
        "seg": {"count": 5, "names": None},
        "cls": {"count": 4, "names": None},
        "det": {"count": 3, "names": None},
    },
    "tasks": {"seg": {"input_size": [64, 96]}, "cls": {"input_size": [32, 32]}, "det": {"input_size": [96, 96]}},
    "model": {
        "backbone": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
        "heads": {
            "seg": {"channels": 8, "aux_channels": 8},
            "cls": {"channels": 32},
            "det": {"neck": {"channels": [8, 16, 16]}},
        },
    },
    "infer": {"size": [64, 96]},
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """A folder with tiny.yml, random weights ("random"), their bundle ("bundle") and "pictures" of four sizes."""
    import cv2
    import numpy as np
    import paddle
    import yaml
    from safetensors.numpy import save_file

    from ppmtl import build
    from ppmtl.bundle.settings import SourceRecord
    from ppmtl.config import check, load_config
    from ppmtl.export.folder import Content, write_bundle
    from ppmtl.run import Settings

    folder = tmp_path_factory.mktemp("exported")
    (folder / "tiny.yml").write_text(yaml.safe_dump(TINY))
    tree = load_config(folder / "tiny.yml")
    settings = check(Settings, tree)
    paddle.seed(0)
    classes = build.build_classes(settings, None)
    model = build.build_model(settings, classes)
    (folder / "random").mkdir()
    save_file({name: value.numpy() for name, value in model.state_dict().items()}, folder / "random/model.safetensors")
    (folder / "random" / "state.json").write_text(json.dumps(build.describe({}, classes)))
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
