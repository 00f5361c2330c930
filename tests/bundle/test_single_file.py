"""model.onnx: backbone and heads in one graph, for programs without ppmtl."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bundle import TASKS, assert_equal, noise, write_raw_boxes

from ppmtl.bundle.graphs import Plan
from ppmtl.bundle.reading import read_bundle
from ppmtl.bundle.settings import HeadGraph, Search, StepGraph
from ppmtl.bundle.verify import FINAL, SINGLE, Images, check_bundle, finish_boxes
from ppmtl.models.backend import PaddleBackend
from ppmtl.structures import ClassList
from ppmtl.tasks.detection import Detection

pytest.importorskip("paddle2onnx", reason="requirements-deploy.txt is not installed")
ort = pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")
onnx = pytest.importorskip("onnx", reason="requirements-deploy.txt is not installed")
from ppmtl.bundle.final_boxes import add_final_boxes  # noqa: E402
from ppmtl.bundle.single_file import FinalBoxes, require_one_graph  # noqa: E402
from ppmtl.bundle.single_file import backend as single_file  # noqa: E402

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"


def test_it_gives_the_arrays_of_the_training_graph_at_any_size_and_batch(model, onnx_bundle):
    backend = single_file(onnx_bundle / "model.onnx", read_bundle(onnx_bundle).settings.heads)
    session = ort.InferenceSession(str(onnx_bundle / "model.onnx"))
    names = [value.name for value in session.get_outputs()]
    for shape in ((64, 96), (90, 45, 2)):
        wanted = PaddleBackend(model)(noise(*shape), TASKS)
        assert_equal(backend(noise(*shape), TASKS), wanted)
        together = dict(zip(names, session.run(None, {"images": noise(*shape)}), strict=True))
        arrays = {task: {name: together[f"{task}_{name}"] for name in of_task} for task, of_task in wanted.items()}
        assert_equal(arrays, wanted)


def test_it_lies_beside_the_bundle_and_names_its_classes(onnx_bundle):
    assert sorted(path.name for path in onnx_bundle.iterdir()) == sorted(
        ["infer_cfg.yml", "model.onnx", "trunk.onnx", *(f"head_{task}.onnx" for task in TASKS)]
    )
    assert "model.onnx" not in [record.name for record in read_bundle(onnx_bundle).settings.files]
    meta = ort.InferenceSession(str(onnx_bundle / "model.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(meta["tasks"])["det"] == {"type": "detection", "classes": ["stop", "give way"]}


def test_nothing_in_it_is_unused(onnx_bundle):
    graph = onnx.load(onnx_bundle / "model.onnx").graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert all(read.intersection(node.output) for node in graph.node)


def test_raw_arrays_and_final_boxes_are_compared_with_the_training_graph(model, onnx_bundle, tmp_path):
    shutil.copytree(onnx_bundle, tmp_path / "b")
    images = {name: Images("random", 2) for name in TASKS}
    runs = check_bundle(tmp_path / "b", model, images, batch=2, tolerances={})
    assert [check["task"] for check in runs[SINGLE]] == list(TASKS)
    assert not [problem for check in runs[SINGLE] for problem in check["problems"]]
    (check,) = finish_boxes(tmp_path / "b", images)[FINAL]
    assert (check["task"], check["problems"]) == ("det", [])
    session = ort.InferenceSession(str(tmp_path / "b" / "model.onnx"))
    names = [value.name for value in session.get_outputs()]
    assert names == ["seg_probs", "cls_probs", "det_boxes", "det_scores", "det_classes"]


def test_boxes_that_are_not_those_of_the_pipeline_are_counted(tmp_path):
    boxes = np.float32([[[0, 0, 9, 9], [20, 20, 40, 40], [50, 0, 60, 30]]])
    raw = {"boxes": boxes, "scores": np.float32([[[0.9], [0.8], [0.7]]])}
    task = Detection("det", ClassList(("a",)), score_threshold=0.5)
    write_raw_boxes(tmp_path / "m.onnx", raw)
    add_final_boxes(tmp_path / "m.onnx", {"det": task})
    for second, different in ((0.8, 0), (0.8001, 2), (0.4, 1)):
        other = {"boxes": boxes, "scores": np.float32([[[0.9], [second], [0.7]]])}
        counted = FinalBoxes(tmp_path / "m.onnx", lambda *_, other=other: {"det": other}, task)
        counted(np.zeros((1, 64, 64, 3), np.uint8), ("det",))
        assert counted.different == different


def test_a_head_that_answers_word_by_word_is_refused():
    steps = StepGraph("head_captions_step", Search(3, 3, 0, 11))
    plan = Plan(None, None, {"captions": HeadGraph("head_captions", ("c5",), ("tokens",), steps=steps)}, {})
    with pytest.raises(ValueError, match=r"captions answers word by word, .* leave it out with --tasks"):
        require_one_graph(plan)


def test_the_example_of_the_guide_finds_the_boxes_in_an_image(onnx_bundle, tmp_path, monkeypatch, capsys):
    shutil.copytree(onnx_bundle, tmp_path / "b")
    finish_boxes(tmp_path / "b", {name: Images("random", 1) for name in TASKS})
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.jpg", noise(64, 96)[0])
    (code,) = re.findall(r"```python\n(import json\n.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 12  # short enough to be pasted
    exec(code.replace("output_inference/allinone_demo", "b"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] in [f"class: {letter}" for letter in "abcde"]
    assert printed[1].startswith("label map: (")
    assert all(re.fullmatch(r"(stop|give way) 0\.\d+ \[.*\]", line) for line in printed[2:])
