"""tools/eval.py --bundle measures an exported bundle as it measures weights, --predictions what it stored itself.

The weights are random, so the labels are made from what they answer: they score near 1, and whatever the bundle or its
post-processing does otherwise costs points.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo_data import DemoRequest, make_dataset
from ppmtl.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def relabel(folder: Path, config: Path, weights: Path) -> None:
    """Replaces the labels of the validation images by the weights' own answers."""
    from ppmtl import build
    from ppmtl.data.images import find_images, read_image
    from ppmtl.predict.pipeline import Pipeline

    tasks, backend = build.open_trained(build.load(str(config), [f"weights={weights}"]).settings, {})
    train = folder / "track1_train_data"

    def answers(task: str, images: str):
        pipeline = Pipeline({task: tasks[task]}, backend)
        for path in find_images(train / images):
            yield path, pipeline.predict([read_image(path)], [str(path)])[0][task]

    for path, found in answers("seg", "seg/images/val"):
        cv2.imwrite(str(train / "seg" / "label" / "val" / f"{path.stem}.png"), found.labels)
    lines = [f"{path.name} {found.probs.argmax()}\n" for path, found in answers("cls", "cls/val")]
    (train / "cls" / "val.txt").write_text("".join(lines))
    truth = json.loads((train / "dec" / "val.json").read_text())
    numbers = {image["file_name"]: image["id"] for image in truth["images"]}
    truth["annotations"] = []
    for path, found in answers("det", "dec/val"):
        for box, label in zip(found.boxes[:6].astype(float), found.labels[:6], strict=True):
            x, y, w, h = *box[:2], *(box[2:] - box[:2])
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": numbers[path.name], "iscrowd": 0, "area": w * h,
                 "bbox": [x, y, w, h], "category_id": tasks["det"].classes.ids[label]}
            )  # fmt: skip
    (train / "dec" / "val.json").write_text(json.dumps(truth))


@pytest.fixture(scope="module")
def evaluate(exported, tmp_path_factory):
    """A function from flags to metrics.json."""
    spec = importlib.util.spec_from_file_location("eval_script", ROOT / "tools" / "eval.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    sizes = {"size": (64, 96), "det_size": (150, 200), "cls_size": (32, 32)}
    counts = {"seg_images": (1, 4, 1), "det_images": (1, 5, 1), "cls_images": (4, 9, 1)}
    make_dataset(data, DemoRequest(**sizes, **counts, sign_classes=3, vehicle_classes=4))
    relabel(data, exported / "tiny.yml", exported / "random")

    def run(*flags: str) -> dict:
        common = ["-c", str(exported / "tiny.yml"), "-o", f"data_root={data}", f"save_dir={out}"]
        assert script.main([*common, "--output_eval", str(out), *flags]) == 0
        return json.loads((out / "metrics.json").read_text())

    run.out = out
    return run


def metrics(document: dict) -> list[float]:
    chosen = (("seg", "miou"), ("seg", "pixel_accuracy"), ("cls", "top1"), ("det", "ap50"), ("det", "ap50_95"))
    return [document["tasks"][task][metric] for task, metric in chosen]


@pytest.mark.parametrize("flags", [(), ("--tta",), ("--slice_infer",)], ids=str)
def test_an_exported_bundle_measures_what_its_weights_measure(exported, evaluate, flags):
    weights = evaluate("-o", f"weights={exported / 'random'}", *flags)
    bundle = evaluate("--bundle", str(exported / "bundle"), *flags)
    assert bundle["bundle"] == str(exported / "bundle")
    assert set(bundle["tasks"]) == {"seg", "cls", "det"}
    if not flags:
        assert min(metrics(weights)) > 0.7
    assert metrics(bundle) == pytest.approx(metrics(weights), abs=2e-3)


def test_tasks_that_were_not_exported_are_not_evaluated(exported, evaluate, tmp_path):
    """Nor are the files of heads needed that --tasks leaves out."""
    for file in (exported / "bundle").iterdir():
        if not file.name.startswith(("head_seg", "head_det")):
            shutil.copy(file, tmp_path)
    assert set(evaluate("--bundle", str(tmp_path), "--tasks", "cls")["tasks"]) == {"cls"}
    assert np.isfinite(evaluate("--bundle", str(exported / "bundle"), "--limit", "2")["score"])


def test_stored_predictions_measure_what_the_weights_measured_without_a_network(exported, evaluate, monkeypatch):
    from ppmtl import build

    weights = evaluate("-o", f"weights={exported / 'random'}", "--save_predictions", "--limit", "3")
    folder = Path(evaluate.out) / "predictions"
    assert {path.name for path in folder.iterdir()} >= {"seg", "cls.csv", "det.json", "det_coco.json", "info.json"}
    monkeypatch.setattr(build, "build_model", None)
    stored = evaluate("--predictions", str(folder))  # of the first three images, without being told
    assert (stored["predictions"], stored["limit"]) == (str(folder), 3)
    assert metrics(stored) == pytest.approx(metrics(weights), abs=1e-6)
    only = evaluate("--predictions", str(folder / "det.json"))
    assert set(only["tasks"]) == {"det"}
    assert only["tasks"]["det"]["ap50"] == pytest.approx(weights["tasks"]["det"]["ap50"], abs=1e-6)


@pytest.mark.parametrize("flag", ["--tta", "--slice_infer", "--save_predictions"])
def test_flags_that_say_how_to_predict_are_refused_with_stored_predictions(evaluate, flag):
    with pytest.raises(ConfigError, match=f"measured as they are: leave {flag} out"):
        evaluate("--predictions", "somewhere", flag)
