"""Bundles with all tasks of the yolov7_af family: a head that answers word by word finds the training graph's sentence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from small_model import write_bundle_of
from small_scenes import SIZE

from ppmtl import build
from ppmtl.bundle.engines.backend import open_backend
from ppmtl.bundle.reading import read_bundle
from ppmtl.config import ConfigError
from ppmtl.models.backend import PaddleBackend
from ppmtl.ops.beam_search import best_sequences
from ppmtl.predict.pipeline import Pipeline

TASKS = ("instances", "semantic", "captions")
# Random weights amplify rounding: trained ones move boxes by 5e-4 px at most
TOLERANCE = {"tokens": 0, "log_probs": 1e-3, "scores": 1e-3, "boxes": 0.5, "coefficients": 1e-2, "prototypes": 1e-2,
             "probs": 1e-3}  # fmt: skip


def images(folder: Path) -> list[np.ndarray]:
    read = [cv2.imread(str(path))[..., ::-1] for path in sorted((folder / "images").glob("*.png"))]
    return [*read[:4], cv2.resize(read[4], (200, 150))]


@pytest.fixture(scope="module")
def trained(scenes: Path) -> tuple[Any, PaddleBackend]:
    """The tasks and the training graph."""
    run = build.load(str(scenes / "scenes.yml"), [f"weights={scenes / 'random'}"])
    tasks, model = build.load_model(run.settings)
    return tasks, PaddleBackend(model)


def assert_equal(backend: Any, wanted: Any, batch: np.ndarray) -> None:
    found, expected = backend(batch, TASKS), wanted(batch, TASKS)
    assert {task: sorted(raw) for task, raw in found.items()} == {task: sorted(raw) for task, raw in expected.items()}
    for task, arrays in expected.items():
        for name, array in arrays.items():
            assert found[task][name].dtype == array.dtype == np.float32
            np.testing.assert_allclose(found[task][name], array, rtol=0, atol=TOLERANCE[name], err_msg=f"{task}.{name}")


@pytest.mark.parametrize("graph_format", ["paddle", "onnx"])
def test_every_format_gives_the_sentences_and_arrays_of_the_training_graph(scenes, trained, tmp_path, graph_format):
    folder = scenes / "bundle"
    if graph_format == "onnx":
        pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
        pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")
    if graph_format != "paddle":
        folder = tmp_path / "bundle"
        write_bundle_of(scenes / "scenes.yml", scenes / "random", folder, graph_format=graph_format)
    backend = open_backend(read_bundle(folder), cpu_threads=1)
    batch = np.stack(images(scenes)[:4])
    assert_equal(backend, trained[1], batch)
    assert_equal(backend, trained[1], batch[:1])
    assert_equal(backend, trained[1], np.stack([cv2.resize(image, (160, 96)) for image in batch[:2]]))  # another size
    tokens = trained[1](batch, ("captions",))["captions"]["tokens"]
    assert len(np.unique(tokens, axis=0)) >= 3  # or any search would be right
    assert (tokens > 3).any(axis=1).all()


def test_masks_and_sentences_of_the_bundle_are_those_of_the_training_graph(scenes, trained):
    tasks, wanted = trained
    bundle = read_bundle(scenes / "bundle")
    shown = images(scenes)
    found, expected = (
        Pipeline(of, backend, augment=augment, batch_size=2).predict(shown, ["x"] * len(shown))
        for of, backend, augment in (
            (bundle.tasks, open_backend(bundle, cpu_threads=1), False),
            (tasks, wanted, False),
        )
    )
    masks = 0
    for image, same in zip(found, expected, strict=True):
        assert image["captions"].text == same["captions"].text
        assert image["captions"].score == pytest.approx(same["captions"].score, abs=1e-4)
        assert len(image["instances"]) == len(same["instances"])
        for mask, other in zip(image["instances"].masks, same["instances"].masks, strict=True):
            assert np.mean(mask.pixels() != other.pixels()) < 1e-3  # a pixel on the edge may fall to either side
            masks += mask.area() > 50
        assert np.mean(image["semantic"].labels != same["semantic"].labels) < 1e-3
    assert masks > 10


def test_a_fixed_size_and_batch_take_the_search_along(scenes, trained, tmp_path):
    write_bundle_of(scenes / "scenes.yml", scenes / "random", tmp_path / "fixed", size=SIZE, batch=3)
    assert_equal(open_backend(read_bundle(tmp_path / "fixed"), cpu_threads=1), trained[1], np.stack(images(scenes)[:4]))


def test_the_settings_say_how_the_words_are_searched_and_the_step_is_a_file_of_the_bundle(scenes):
    head = read_bundle(scenes / "bundle").settings.heads["captions"]
    assert head.outputs == ("log_probs", "tokens")
    assert head.files == ("head_captions", "head_captions_step")
    written = yaml.safe_load((scenes / "bundle" / "infer_cfg.yml").read_text())
    search = {"beam_size": 3, "end": 3, "pad": 0, "length": 11, "unknown": 1}
    assert written["heads"]["captions"]["steps"]["search"] == search
    assert "steps" not in written["heads"]["semantic"]  # versions that do not know the key read such bundles
    assert "head_captions_step.pdmodel" in [record["name"] for record in written["files"]]


def test_without_the_sentence_its_files_need_not_be_there(scenes, tmp_path):
    shutil.copytree(scenes / "bundle", tmp_path / "b")
    (tmp_path / "b" / "head_captions_step.pdiparams").unlink()
    with pytest.raises(ValueError, match=r"head_captions_step\.pdiparams: is missing from the bundle"):
        read_bundle(tmp_path / "b")
    backend = open_backend(read_bundle(tmp_path / "b", ["semantic"]), cpu_threads=1)
    assert backend(np.stack(images(scenes)[:1]), ("semantic",))["semantic"]["probs"].shape[:2] == (1, 3)


def test_a_search_that_is_not_said_completely_is_named(scenes, tmp_path):
    shutil.copytree(scenes / "bundle", tmp_path / "b")
    file = tmp_path / "b" / "infer_cfg.yml"
    text = file.read_text()
    file.write_text(re.sub(r"length: 11", "lenght: 11", text))
    with pytest.raises(ConfigError, match=r"heads\.captions\.steps\.search\.lenght .*did you mean 'length'"):
        read_bundle(tmp_path / "b")


def test_the_best_sequence_scores_its_mean_over_its_tokens_and_its_end():
    first = np.log([[0.1, 0.1, 0.5, 0.3], [0.1, 0.7, 0.1, 0.1]]).astype(np.float32)

    def step(_, rows, state):  # after 2 comes the end (1), and nothing is asked of what has ended
        return np.log(np.tile(np.float32([0.1, 0.6, 0.2, 0.1]), (len(rows), 1))), state

    found = best_sequences(first, None, step, beam_size=1, end=1, pad=0, length=3)
    assert found["tokens"].tolist() == [[2, 1, 0], [1, 0, 0]]
    np.testing.assert_allclose(found["log_probs"], [np.log(0.5 * 0.6) / 2, np.log(0.7)], rtol=1e-6)
