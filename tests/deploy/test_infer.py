"""deploy/python/infer.py, called as people call it: it answers what tools/infer.py answers with the same weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from container_image import ROOT, script
from same_answers import assert_same, assert_same_map

from ppmtl import build
from ppmtl.data.images import find_images
from ppmtl.data.label_maps import read_label_map
from ppmtl.data.labels import Boxes
from ppmtl.data.reader import Reader
from ppmtl.predict.evaluate import EvalSet, evaluate


@pytest.fixture(scope="module")
def infer():
    return script("deploy/python/infer.py").main


@pytest.fixture(scope="module")
def tools_infer():
    return script("tools/infer.py").main


def documents(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def label_maps(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_label_map(path) for path in sorted(folder.glob("*_seg.png"))}


@pytest.mark.parametrize(
    "flags", [(), ("--per_task_size", "False"), ("--tta", "--scales", "1.0", "1.5"), ("--slice_infer",)], ids=str
)
def test_the_answers_are_those_of_tools_infer(exported, tmp_path, infer, tools_infer, flags):
    flags = ("--threshold", "0", *flags)
    common = ("--infer_dir", str(exported / "pictures"), "--output_dir", str(tmp_path / "expected"))
    weights = ("-c", str(exported / "tiny.yml"), "-o", f"weights={exported / 'random'}", "data_root=none")
    assert tools_infer([*weights, *common, *flags]) == 0
    here = ("--model_dir", str(exported / "bundle"), "--image_dir", str(exported / "pictures"), "--cpu_threads", "1")
    assert infer([*here, "--output_dir", str(tmp_path / "found"), "--batch_size", "3", *flags]) == 0
    found, expected = documents(tmp_path / "found"), documents(tmp_path / "expected")
    assert list(found) == list(expected) == list("abcd")
    for name, document in expected.items():
        assert [found[name][key] for key in ("size", "backbone_runs")] == [document["size"], document["backbone_runs"]]
        assert_same(found[name], document)
    if len(flags) == 2 or "--per_task_size" in flags:
        assert found["d"]["backbone_runs"] == (3 if len(flags) == 2 else 1)  # three tasks, three sizes
    if "--slice_infer" in flags:
        assert found["d"]["backbone_runs"] == 3 + 4 * 6  # steps of 72 px over 300 - 96 and 400 - 96
    maps, wanted = label_maps(tmp_path / "found"), label_maps(tmp_path / "expected")
    assert list(maps) == list(wanted) == ["a_seg.png", "b_seg.png", "c_seg.png", "d_seg.png"]
    for name in wanted:
        assert_same_map(maps[name], wanted[name])
    assert {path.stem for path in (tmp_path / "found").glob("*.jpg")} == set("abcd")


class Unlabelled(Reader):
    """The pictures as a data set without any object."""

    def __init__(self, folder: Path, tasks: dict) -> None:
        super().__init__(folder, {name: task.classes for name, task in tasks.items()})
        self._paths = find_images(folder)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        return str(self._paths[index])

    def labels(self, index: int, image: np.ndarray) -> dict:  # noqa: ARG002
        return {name: Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) for name in self.tasks}

    def describe(self) -> str:
        return "pictures"

    required_paths = None


def test_what_infer_finds_is_what_evaluation_measures(exported, tmp_path, infer, tools_infer):
    """The tasks of the config want three sizes, and it names one for all (infer.size)."""
    weights = ("-c", str(exported / "tiny.yml"), "-o", f"weights={exported / 'random'}", "data_root=none")
    common = ("--image_dir", str(exported / "pictures"), "--threshold", "0")
    assert tools_infer([*weights, *common, "--output_dir", str(tmp_path / "tools")]) == 0
    bundle = ("--model_dir", str(exported / "bundle"), "--cpu_threads", "1")
    assert infer([*bundle, *common, "--output_dir", str(tmp_path / "deploy")]) == 0
    tasks, backend = build.open_trained(build.load(weights[1], weights[3:]).settings, {})
    chosen = {"det": tasks["det"]}
    sets = {"pictures": EvalSet(Unlabelled(exported / "pictures", chosen), ("det",))}
    measured = evaluate(chosen, sets, backend, num_examples=4).examples["pictures"]
    assert len(measured) == 4
    for sample, predictions in measured:
        wanted = chosen["det"].to_json(predictions["det"])["boxes"]
        name = Path(sample.path).stem
        assert documents(tmp_path / "tools")[name]["det"]["boxes"] == wanted
        for found, same in zip(documents(tmp_path / "deploy")[name]["det"]["boxes"], wanted, strict=True):
            assert found["score"] == pytest.approx(same["score"], abs=1e-4)


def test_a_shared_size_says_what_it_costs(exported, tmp_path, tools_infer, capsys):
    weights = ("-c", str(exported / "tiny.yml"), "-o", f"weights={exported / 'random'}", "data_root=none")
    common = ("--infer_img", str(exported / "pictures" / "a.png"), "--output_dir", str(tmp_path))
    assert tools_infer([*weights, *common, "--per_task_size", "False"]) == 0
    assert "every task sees 64x96" in (said := capsys.readouterr().err)
    assert "cls at 32x32, det at 96x96" in said
    assert tools_infer([*weights, *common]) == 0
    assert "every task sees" not in capsys.readouterr().err


def test_boxes_below_the_threshold_are_neither_drawn_nor_written(exported, tmp_path, infer):
    common = (
        "--model_dir",
        str(exported / "bundle"),
        "--infer_img",
        str(exported / "pictures" / "d.png"),
        "--tasks",
        "det",
    )
    found = {}
    for threshold in (0.0, 0.9):
        assert infer([*common, "--output_dir", str(tmp_path / str(threshold)), "--draw_threshold", str(threshold)]) == 0
        found[threshold] = documents(tmp_path / str(threshold))["d"]
    assert found[0.9]["threshold"] == 0.9
    scores = {threshold: [box["score"] for box in of["det"]["boxes"]] for threshold, of in found.items()}
    assert scores[0.9] == [score for score in scores[0.0] if score >= 0.9]
    assert len(scores[0.9]) < len(scores[0.0])


def test_only_the_tasks_asked_for_are_answered_and_their_files_are_enough(exported, tmp_path, infer):
    files = [f"{stem}.{suffix}" for stem in ("trunk", "head_det") for suffix in ("pdmodel", "pdiparams")]
    for name in ("infer_cfg.yml", *files):
        shutil.copy(exported / "bundle" / name, tmp_path)
    flags = ("--image_file", str(exported / "pictures" / "a.png"), "--output_dir", str(tmp_path / "out"))
    assert infer(["--model_dir", str(tmp_path), *flags, "--tasks", "det"]) == 0
    assert set(documents(tmp_path / "out")["a"]) == {"image", "seconds", "backbone_runs", "size", "threshold", "det"}


def test_a_bad_image_is_named_and_skipped_and_the_exit_code_says_so(exported, tmp_path, infer, capsys):
    pictures = tmp_path / "in"
    shutil.copytree(exported / "pictures", pictures)
    (pictures / "bad.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:500])
    flags = ("--image_dir", str(pictures), "--output_dir", str(tmp_path / "out"), "--batch_size", "2", "--tasks", "cls")
    assert infer(["--model_dir", str(exported / "bundle"), *flags]) == 1
    assert set(documents(tmp_path / "out")) == set("abcd")
    printed = capsys.readouterr()
    assert "skipped: " in printed.err
    assert "bad.jpg" in printed.err
    assert "4 of 5 images written" in printed.out


def test_without_saving_each_image_is_a_line_of_json(exported, tmp_path, infer, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--image_dir", str(exported / "pictures"), "--tasks", "cls", "--save_results", "False")
    assert infer(["--model_dir", str(exported / "bundle"), *flags]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.png", "b.jpg", "c.webp", "d.png"]
    assert lines[1]["size"] == [90, 70]
    assert not list(tmp_path.iterdir())


def test_a_video_is_annotated_and_a_broken_one_ends_with_1(exported, tmp_path, infer, capsys):
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for index in range(12):
        writer.write(np.random.default_rng(index).integers(0, 256, (64, 96, 3), np.uint8))
    writer.release()
    common = ("--model_dir", str(exported / "bundle"), "--output_dir", str(tmp_path / "out"), "--batch_size", "4")
    assert infer([*common, "--video_file", str(tmp_path / "in.avi")]) == 0
    assert "12 frames" in capsys.readouterr().out
    data = (tmp_path / "in.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    assert infer([*common, "--video_file", str(tmp_path / "cut.avi")]) == 1
    assert "of 12 frames; it is cut off or damaged" in capsys.readouterr().err


def test_the_benchmark_prints_every_stage_and_writes_nothing(exported, tmp_path, infer, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--image_dir", str(exported / "pictures"), "--run_benchmark", "--benchmark_runs", "3", "--batch_size", "2")
    assert infer(["--model_dir", str(exported / "bundle"), *flags]) == 0
    printed = capsys.readouterr().out
    assert [stage in printed for stage in ("preprocess", "inference", "postprocess", "total")] == [True] * 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags, code, message", [
    (("--model_dir", "bundel"), 2, "bundel: no such folder; did you mean 'bundle'"),
    (("--tasks", "det,sge"), 2, "did you mean 'seg'"),
    (("--run_mode", "trt_fp16"), 1, "TensorRT needs a GPU"),
    (("--device", "TPU"), 1, "allowed: cpu, gpu, gpu:1"),
    (("--slice_size", "64"), 2, "add --slice_infer"),
    (("--slice_infer", "--overlap_ratio", "1"), 2, "--overlap_ratio: one or two numbers from 0 to below 1"),
    (("--batch_size", "0"), 2, "expected a whole number above 0"),
    (("--threshold", "2"), 2, "expected a number from 0 to 1"),
    (("--output_dir", "pictures"), 1, "holds the images themselves"),
])  # fmt: skip
def test_mistakes_are_one_line_without_a_traceback(exported, flags, code, message):
    command = [sys.executable, str(ROOT / "deploy/python/infer.py"), "--model_dir", "bundle",
               "--image_file", "pictures/a.png", *flags]  # fmt: skip
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
