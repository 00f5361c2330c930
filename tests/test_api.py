"""The Python API: what ppmtl.load takes, what predictions and trainings give back."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest
from small_streets import config, write_streets

import ppmtl
from ppmtl import build
from ppmtl.data.images import read_image
from ppmtl.predict.files import predict_files
from ppmtl.predict.pipeline import Pipeline
from ppmtl.weights.location import demo_checkpoint


@pytest.fixture(scope="module")
def model(exported):
    return ppmtl.load(exported / "random")


@pytest.fixture
def image(exported):
    return exported / "pictures" / "d.png"


def answers(result):
    """Its JSON without the path."""
    return {key: value for key, value in result.to_json().items() if key != "image"}


# ---- loading ------------------------------------------------------------------------------------


def test_a_run_a_checkpoint_its_files_and_a_bundle_are_loaded(exported, model, image, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_model").symlink_to(exported / "random", target_is_directory=True)
    wanted = model.predict(image)
    for path in (tmp_path / "run", str(exported / "random" / "model.safetensors")):
        assert answers(ppmtl.load(path, device="cpu").predict(image)) == answers(wanted)
    bundle = ppmtl.load(exported / "bundle")
    found = bundle.predict(image)
    assert bundle.classes == model.classes
    np.testing.assert_allclose(found["cls"]["probs"], wanted["cls"]["probs"], atol=1e-4)
    assert (found["seg"]["label_map"] == wanted["seg"]["label_map"]).mean() > 0.999


@pytest.mark.parametrize(
    "path, message",
    [
        ("runs/frist", r"no such folder; did you mean '.*first'"),
        ("elsewhere", r"no such folder \(seen from .*\); give the folder of a run"),
        ("runs", r"holds neither a checkpoint .* these lie inside it: first"),
        ("runs/first/log.jsonl", r"log.jsonl is a file; give the folder .* Weights alone do not say"),
        ("unmeasured", r"no best_model, since it was not evaluated; load a checkpoint: '.*step_0000020'"),
        ("runs/first", r"carries no config"),
    ],
)
def test_what_cannot_be_loaded_is_answered_with_what_is_there(path, message, tmp_path):
    for folder, ordinal in (
        ("runs/first/best_model", 1),
        ("unmeasured/step_0000010", 1),
        ("unmeasured/step_0000020", 2),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "state.json").write_text(json.dumps({"ordinal": ordinal, "digests": {}}))
    (tmp_path / "runs/first/log.jsonl").touch()
    with pytest.raises(ValueError, match=message):
        ppmtl.load(tmp_path / path)


def test_an_unknown_name_of_the_package_is_answered_with_those_that_there_are():
    assert {"load", "train", "Model"} <= set(dir(ppmtl))
    with pytest.raises(AttributeError, match=r"no attribute 'laod'; it offers .*load, train"):
        _ = ppmtl.laod


# ---- predicting ---------------------------------------------------------------------------------


def test_predictions_are_those_of_evaluation_and_files_those_of_inference(exported, image, tmp_path):
    settings = build.load(str(exported / "tiny.yml"), [f"weights={exported / 'random'}"]).settings
    tasks, backend = build.open_trained(settings, {})
    pipeline = Pipeline(tasks, backend)  # every task at its own size
    assert predict_files([image], pipeline, tmp_path / "tool", threshold=0.2) == 0
    result = ppmtl.load(exported / "random").predict(image, score_threshold=0.2)
    drawn = result.save(tmp_path / "api")
    assert drawn == tmp_path / "api" / "d.jpg"
    names = sorted(path.name for path in drawn.parent.iterdir())
    assert names == ["d.jpg", "d.json", "d_seg.png"]
    for name in ("d.jpg", "d_seg.png"):
        assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "tool" / name).read_bytes()
    (found,) = pipeline.predict([read_image(image)], [""])
    written = json.loads((tmp_path / "api" / "d.json").read_text())
    assert written["det"] == tasks["det"].to_json(found["det"], threshold=0.2)
    assert written["seg"]["label_png"] == "d_seg.png"


def test_an_image_gives_a_result_and_a_list_gives_a_list_of_paths_and_arrays(model, image):
    array = read_image(image)
    alone, (first, second) = model.predict(image), model.predict([array, str(image)])
    assert (alone.path, first.path, second.path) == (str(image), "", str(image))
    assert answers(first) == answers(second) == answers(alone)
    assert list(alone) == ["seg", "cls", "det"]
    assert model.predict([]) == []


def test_tasks_and_augmentation_are_chosen_per_call(model, image):
    result = model.predict(image, tasks=["cls"])
    assert list(result) == ["cls"]
    with pytest.raises(KeyError, match="'det'; this result has cls"):
        _ = result["det"]
    augmented = model.predict(image, tasks="cls", tta=True)
    assert not np.array_equal(augmented["cls"]["probs"], result["cls"]["probs"])
    with pytest.raises(ValueError, match=r"tasks: got 'dte'; did you mean 'det'\? allowed: seg, cls, det"):
        model.predict(image, tasks=["dte"])


def test_the_threshold_applies_to_every_form_of_a_result(model, image):
    everything = model.predict(image, score_threshold=0)
    middle = float(np.median(everything["det"]["scores"]))
    some = model.predict(image, score_threshold=middle)
    count = int((everything["det"]["scores"] >= middle).sum())
    assert 0 < count < len(everything["det"]["boxes"])
    assert [len(some["det"][key]) for key in ("boxes", "scores", "labels", "names")] == [count] * 4
    assert len(some.to_json()["det"]["boxes"]) == len(some.to_coco()["det"]) == count
    assert (some.to_pandas()["task"] == "det").sum() == count
    nothing = model.predict(image, tasks=["det"], score_threshold=1).to_pandas()
    assert (list(nothing), len(nothing)) == (["image", "task"], 0)
    assert not np.array_equal(some.plot(), everything.plot())
    with pytest.raises(ValueError, match="score_threshold: expected a number from 0 to 1, got 50"):
        model.predict(image, score_threshold=50)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((8, 8), np.uint8), r"images: .*got shape \(8, 8\), uint8. Grey: np.stack"),
        (np.zeros((3, 64, 96), np.float32), r"got shape \(3, 64, 96\), float32"),
        ([np.zeros((2, 8, 8, 3), np.uint8)], r"images\[0\]: .*several images: list\(images\)"),
        ([3.5], r"images\[0\]: expected an array, a path or a list of either, got float"),
        ("nowhere.jpg", r"nowhere.jpg: cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_and_the_remedy_is_said(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.predict(image)


def test_a_notebook_shows_the_drawn_image(model, image):
    result = model.predict(image)
    shown = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown[..., ::-1], result.plot())
    assert not np.array_equal(result.plot(), result.image)
    assert repr(result).endswith("d.png (300x400): seg, cls, det>")
    assert repr(model).endswith("random: seg (segmentation), cls (classification), det (detection)>")


def test_a_result_is_not_written_beside_its_image(model, image):
    with pytest.raises(ValueError, match="holds the image itself, which could be overwritten"):
        model.predict(image, tasks=["cls"]).save(image.parent)


def test_a_table_has_a_row_per_object_class_and_sentence(scenes):
    image = scenes / "images" / "0.png"
    result = ppmtl.load(scenes / "random").predict(image, score_threshold=0)
    table = result.to_pandas()
    counts = table["task"].value_counts()
    assert counts["instances"] == len(result["instances"]["boxes"]) > 0
    assert counts["captions"] == 1
    assert counts["semantic"] == len(np.unique(result["semantic"]["label_map"]))
    assert (table["image"] == str(image)).all()
    first = table[table["task"] == "instances"].iloc[0]
    assert [first[key] for key in ("x1", "y1", "x2", "y2")] == result.to_json()["instances"]["instances"][0]["bbox"]
    masks = result["instances"]["masks"]
    assert {(mask.shape, mask.dtype) for mask in masks} == {(result.image.shape[:2], np.dtype(bool))}
    assert set(result.to_coco()) == {"instances", "captions"}


def test_a_table_without_pandas_says_what_to_install(model, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="pip install pandas"):
        model.predict(image, tasks=["cls"]).to_pandas()


# ---- training -----------------------------------------------------------------------------------


def test_a_training_gives_the_best_models_metrics_and_folder(tmp_path):
    import ppmtl.train.loop

    write_streets(tmp_path)
    path = config(tmp_path)
    result = ppmtl.train(path, {"train.epochs": 1, "train.ema_decay": None}, tasks=["seg", "cls"])
    assert (result.save_dir, result.best_model) == (tmp_path / "run", tmp_path / "run" / "best_model")
    assert (result.step, result.stopped) == (2, "")
    assert set(result.metrics) >= {"score", "seg.miou", "cls.top1"}
    assert result.metrics["score"] == pytest.approx((result.metrics["seg.miou"] + result.metrics["cls.top1"]) / 2)
    found = ppmtl.load(result.save_dir).predict(tmp_path / "images" / "0.png")
    assert sorted(found) == ["cls", "seg"]
    assert found["cls"]["name"] in ("sign", "car")

    tried = ppmtl.train(path, ["train.ema_decay=null"], tasks=["cls"], fast_dev_run=True)
    assert tried.save_dir == tmp_path / "run" / "fast_dev_run"
    unmeasured = ppmtl.train(path, {"save_dir": tmp_path / "other"}, tasks=["cls"], evaluate=False)
    assert (unmeasured.best_model, unmeasured.step, unmeasured.metrics) == (None, None, {})


def test_the_weights_that_come_with_the_project_answer_before_anything_is_trained():
    model = ppmtl.load("demo", device="cpu")
    result = model.predict(demo_checkpoint() / "images" / "street_1.jpg")
    assert set(model.tasks) == {"seg", "cls", "det"}
    assert result["cls"]["name"] in model.tasks["cls"].classes.names
    assert len(np.unique(result["seg"]["label_map"])) > 1
