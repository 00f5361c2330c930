"""infer_cfg.yml of an exported bundle."""

from __future__ import annotations

import numpy as np
import yaml

import ppmtl
from ppmtl.bundle.reading import read_bundle
from ppmtl.files import sha256


def test_the_settings_name_every_file_with_its_digest(paddle_bundle):
    written = yaml.safe_load((paddle_bundle / "infer_cfg.yml").read_text())
    records = {record["name"]: record for record in written["files"]}
    assert len(records) == 8
    assert {path.name for path in paddle_bundle.iterdir()} == {*records, "infer_cfg.yml"}
    for name, record in records.items():
        assert record["sha256"] == sha256(paddle_bundle / name)
        assert record["bytes"] == (paddle_bundle / name).stat().st_size


def test_the_settings_carry_all_that_deployment_needs(paddle_bundle, content):
    settings = read_bundle(paddle_bundle).settings
    assert settings.heads["seg"].inputs == ("c2", "c3", "c4", "c5", "image_size")
    assert settings.heads["det"].inputs == ("c3", "c4", "c5", "image_size")
    assert settings.heads["det"].outputs == ("boxes", "scores")
    assert settings.classes == content.classes
    assert settings.infer.size == (64, 96)
    assert settings.source == content.source
    assert settings.versions["ppmtl"] == ppmtl.__version__
    assert settings.input.size is None
    tasks = read_bundle(paddle_bundle).tasks
    assert tasks["seg"].tta.scales == (1.0, 1.5)
    assert tasks["cls"].long_side == 64
    assert np.array_equal(tasks["det"].input_size, (96, 96))
