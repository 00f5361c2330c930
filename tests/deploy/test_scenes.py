"""Masks and sentences from a bundle: infer.py and the service answer what tools/infer.py does with the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from container_image import script
from ppmtl_service import schema
from ppmtl_service.model import from_bundle
from pydantic import TypeAdapter
from serving_client import post, running

from ppmtl.ops.masks import Rle, unpacked


@pytest.fixture(scope="module")
def expected(scenes: Path, tmp_path_factory) -> Path:
    """What tools/infer.py writes for the images."""
    folder = tmp_path_factory.mktemp("expected")
    command = ["-c", scenes / "scenes.yml", "-o", f"weights={scenes / 'random'}", "--infer_dir", scenes / "images"]
    assert script("tools/infer.py").main([*map(str, command), "--output_dir", str(folder), "--threshold", "0"]) == 0
    return folder


def pixels(row: dict[str, Any]) -> np.ndarray:
    mask = row["segmentation"]
    return Rle(tuple(mask["size"]), unpacked(mask["counts"])).pixels()


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["captions"]["caption"] == wanted["captions"]["caption"]
    assert found["captions"]["score"] == pytest.approx(wanted["captions"]["score"], abs=1e-3)
    rows, same = found["instances"]["instances"], wanted["instances"]["instances"]
    assert len(rows) == len(same) > 0
    for row, other in zip(rows, same, strict=True):
        assert {key: row[key] for key in ("class", "class_index", "category_id")} == {
            key: other[key] for key in ("class", "class_index", "category_id")
        }
        assert row["bbox"] == pytest.approx(other["bbox"], abs=0.5)
        assert row["score"] == pytest.approx(other["score"], abs=1e-3)
        assert np.mean(pixels(row) != pixels(other)) < 2e-3


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_infer_writes_the_sentence_the_masks_and_the_drawn_image(scenes, expected, tmp_path):
    flags = ["--model_dir", scenes / "bundle", "--image_dir", scenes / "images", "--output_dir", tmp_path]
    assert (
        script("deploy/python/infer.py").main(
            [*map(str, flags), "--threshold", "0", "--cpu_threads", "1", "--batch_size", "4"]
        )
        == 0
    )
    found = documents(tmp_path)
    assert list(found) == list("012345")
    for name, document in documents(expected).items():
        assert_same(found[name], document)
        assert document["semantic"]["label_png"] == f"{name}_semantic.png"
    drawn = cv2.imread(str(tmp_path / "0.jpg")).astype(int)
    original = cv2.imread(str(scenes / "images" / "0.png")).astype(int)
    assert drawn.shape[1] > original.shape[1]  # the legend
    assert np.abs(drawn[:, : original.shape[1]] - original).mean() > 10


def test_the_service_answers_masks_and_a_sentence_as_documented(scenes, expected):
    model = from_bundle(scenes / "bundle", None, cpu_threads=1)
    files = sorted((scenes / "images").glob("*.png"))
    with running(model=model) as client:
        answer = post(client, *(file.read_bytes() for file in files), threshold="0").json()
        documented = TypeAdapter(schema.predict_answer(model))
        assert documented.validate_python(answer, strict=True) == answer  # unknown keys would be gone
        for result, document in zip(answer["results"], documents(expected).values(), strict=True):
            assert_same(result, document)
        (best,) = post(client, files[0].read_bytes(), tta="true", tasks="captions").json()["results"]
        assert best["captions"]["score"] >= answer["results"][0]["captions"]["score"]  # of the surest view
        assert "instances" not in best
        tasks = client.get("/v1/model").json()["tasks"]
    assert [entry["name"] for entry in tasks["instances"]["classes"]] == ["square", "triangle"]
    assert tasks["captions"] == {"type": "captions", "classes": []}
