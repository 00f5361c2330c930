"""tools/export_model.py: the checked bundle appears complete or not at all, and mistakes are named."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo_data import DemoRequest, make_dataset
from ppmtl.bundle import verify
from ppmtl.bundle.engines.backend import has_bf16
from ppmtl.bundle.export import read_input_shape
from ppmtl.bundle.reading import read_bundle
from ppmtl.config import ConfigError
from ppmtl.structures import ClassList

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("export_model", ROOT / "tools" / "export_model.py")
export_model = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(export_model)


@pytest.fixture(scope="module")
def work(exported, tmp_path_factory) -> Path:
    """A folder with data, the small model's config and its weights."""
    folder = tmp_path_factory.mktemp("export")
    sizes = {"size": (64, 96), "det_size": (96, 96), "cls_size": (32, 32), "sign_classes": 3, "vehicle_classes": 4}
    images = (1, 2, 1)
    make_dataset(folder / "data", DemoRequest(**sizes, seg_images=images, det_images=images, cls_images=images))
    for file in (folder / "data" / "track1_train_data" / "seg" / "label" / "val").glob("*.png"):
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), np.where(labels < 5, labels, 255))  # the small model knows five classes
    shutil.copy(exported / "tiny.yml", folder)
    shutil.copytree(exported / "random", folder / "best")
    state = json.loads((folder / "best" / "state.json").read_text())
    state["classes"]["det"] = {"names": ["i5", "pl40", "w57"], "ids": [1, 2, 3]}  # the config has no names
    (folder / "best" / "state.json").write_text(json.dumps(state))
    return folder


@pytest.fixture(autouse=True)
def inside(work, monkeypatch) -> None:
    monkeypatch.chdir(work)


PARTS = ("tasks", "model.heads", "sources", "eval.datasets", "train.loss_weights")
COMMON = ("-c", "tiny.yml", "-o", "weights=best", "data_root=data", "--verify_images", "2")


def test_a_bundle_is_written_with_what_was_measured(work):
    command = [sys.executable, str(ROOT / "tools" / "export_model.py"), *COMMON]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "wrote output_inference/tiny: 8 files" in result.stdout
    assert "**Passed.**" in result.stdout
    report = json.loads((work / "output_inference" / "tiny" / "export_report.json").read_text())
    assert report["passed"]
    checks = {entry["task"]: entry for entry in report["runs"]["float32"]}
    assert {task: (entry["pictures"], entry["primary"]) for task, entry in checks.items()} == {
        "seg": (2, "miou"), "cls": (2, "top1"), "det": (2, "ap50"),
    }  # fmt: skip
    for entry in checks.values():
        assert "validation set" in entry["from"]
        assert all(0 <= output["largest_difference"] <= output["allowed"] for output in entry["outputs"].values())
        assert abs(entry["metrics"][entry["primary"]]["change"] or 0) <= 0.002
    assert (work / "output_inference" / "tiny" / "export_report.md").is_file()
    assert [path.name for path in (work / "output_inference").iterdir()] == ["tiny"]
    settings = read_bundle(work / "output_inference" / "tiny").settings
    assert settings.source.step == 7
    assert settings.classes["det"] == ClassList(("i5", "pl40", "w57"), (1, 2, 3))


def test_without_data_the_numbers_are_compared_on_random_images(work, capsys):
    removed = [f"{name}.{task}=null" for task in ("seg", "det") for name in (*PARTS, "eval.expected")]
    assert export_model.main([*COMMON, "-o", "data_root=nowhere", *removed, "--output_dir", "no_data"]) == 0
    assert "no validation data under nowhere" in capsys.readouterr().out
    report = json.loads((work / "no_data" / "tiny" / "export_report.json").read_text())
    (entry,) = report["runs"]["float32"]
    assert entry["primary"] is None
    assert "random images" in entry["from"]
    assert read_bundle(work / "no_data" / "tiny").settings.heads.keys() == {"cls"}


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not multiply bfloat16")
def test_bfloat16_is_not_passed_without_labels_to_judge_it_by():
    with pytest.raises(ConfigError, match="judged by metrics, and the validation data of cls are not under"):
        export_model.main([*COMMON, "-o", "data_root=nowhere", "--tasks", "cls", "--check_bf16"])


def test_8_bit_is_not_passed_without_labels_to_judge_it_by():
    command = ["-o", "data_root=nowhere", "--tasks", "cls", "--format", "onnx", "--int8"]
    with pytest.raises(
        ConfigError, match="--int8: 8 bit is judged by metrics, and the validation data of cls are not under"
    ):
        export_model.main([*COMMON, *command])


def test_a_metric_that_8_bit_lowers_too_far_refuses_the_export(work, capsys, monkeypatch):
    pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
    pytest.importorskip("ml_dtypes", reason="requirements-deploy.txt is not installed")
    judged, real = [], verify.check_eight_bits

    def check(before, after, images, **options):
        judged.append((images["cls"].count, options["max_drop"]))
        (found,) = real(before, after, images, **options)[verify.INT8]
        assert list(found["metrics"]["top1"]) == ["training_graph", "bundle", "change"]
        return {verify.INT8: [found | {"problems": ["cls.top1 drops by 0.0300, allowed 0.0200"]}]}

    monkeypatch.setattr(verify, "check_eight_bits", check)
    command = ["--tasks", "cls", "--format", "onnx", "--int8", "--calibration_images", "2", "--max_drop", "0.02"]
    assert export_model.main([*COMMON, *command, "--output_dir", "eight"]) == 1
    assert judged == [(2, 0.02)]  # all there are
    output = capsys.readouterr()
    assert "8 bit: cls.top1 drops by 0.0300, allowed 0.0200" in output.err
    assert "or allow more with --max_drop" in output.err
    assert "| task alone | float32, ms per input | 8 bit, ms per input | ratio |" in output.out
    assert [path.name for path in (work / "eight").iterdir()] == ["tiny.failed"]
    assert read_bundle(work / "eight" / "tiny.failed").settings.precision == "int8"


def test_beyond_tolerance_the_command_fails_and_the_old_bundle_stays(work, capsys):
    command = [*COMMON, "--tasks", "cls", "--output_dir", "strict"]
    assert export_model.main(command) == 0
    before = {path.name: path.read_bytes() for path in (work / "strict" / "tiny").iterdir()}
    assert export_model.main([*command, "--format", "paddle-json", "--tolerance", "probs=0"]) == 1
    error = capsys.readouterr().err
    assert "beyond tolerance, not exported; strict/tiny is as it was before" in error
    assert "float32: cls.probs differs by" in error
    assert {path.name: path.read_bytes() for path in (work / "strict" / "tiny").iterdir()} == before
    assert sorted(path.name for path in (work / "strict").iterdir()) == ["tiny", "tiny.failed"]
    assert not json.loads((work / "strict" / "tiny.failed" / "export_report.json").read_text())["passed"]
    assert export_model.main([*command, "--format", "paddle-json"]) == 0  # and a good one replaces it
    assert read_bundle(work / "strict" / "tiny").settings.graph_format == "paddle-json"


def test_an_export_that_breaks_off_leaves_nothing_behind(work):
    with pytest.raises(ValueError, match=r"inputs of 20 x 64 \(H x W\): ConvNeXt .* at least 32 px"):
        export_model.main([*COMMON, "--tasks", "cls", "--input_shape", "20", "64", "--output_dir", "broken"])
    assert list((work / "broken").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "cls,depth"], "--tasks: got 'depth'; did you mean 'det'? allowed: seg, cls, det"),
        (["-o", "weights=null"], "weights: nothing to load"),
        (["--input_shape", "3", "64", "64"], "--input_shape: got 3 64 64; write HEIGHT WIDTH, or BATCH 3 HEIGHT WIDTH"),
        (["--input_shape", "1", "64", "64", "3"], "--input_shape: got 1 64 64 3"),
        (["--input_shape", "64", "-1"], "any size if both sides are -1"),
        (
            ["--tolerance", "prob=1e-3"],
            "got 'prob=1e-3'; did you mean 'probs'? allowed: probs, scores, boxes, metric, bf16_metric",
        ),
        (["--tolerance", "boxes=much"], "--tolerance: got 'boxes=much'; write boxes=NUMBER, from 0 up"),
        (["--check_bf16", "--format", "onnx"], "--check_bf16: ONNX Runtime computes in float32"),
        (["--int8"], "--int8: is made of ONNX graphs; add --format onnx"),
        (["--single_file", "final", "--format", "paddle"], "--single_file: is made of ONNX graphs; add --format onnx"),
        (["--format", "onnx", "--max_drop", "0.1"], "--max_drop: changes the export in 8 bit; add --int8"),
    ],
)
def test_mistakes_in_the_command_are_named(arguments, message):
    with pytest.raises(ConfigError) as error:
        export_model.main([*COMMON, *arguments])
    assert message in str(error.value)


def test_weights_without_class_lists_are_refused(work):
    (work / "elsewhere").mkdir()
    bare = work / "elsewhere" / "bare.safetensors"
    bare.write_bytes((work / "best" / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"has no class list for seg, cls, det in its state\.json"):
        export_model.main(["-c", "tiny.yml", "-o", f"weights={bare}"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, (None, None)),
        ([64, 96], ((64, 96), None)),
        ([2, 3, 64, 96], ((64, 96), 2)),
        ([-1, 3, 64, 96], ((64, 96), None)),
        ([1, 3, -1, -1], (None, 1)),
    ],
)
def test_input_shapes_are_read_as_paddles_users_write_them(values, expected):
    assert read_input_shape(values) == expected
