"""Instances, semantics and captions of one data set, from the command line: some of the tasks trained, resumed, exported."""

from __future__ import annotations

import json

import pytest
from small_model import tool
from small_scenes import config, write_scenes

from ppmtl.bundle.reading import read_bundle


@pytest.fixture
def folder(tmp_path):
    write_scenes(tmp_path)
    config(tmp_path)
    return tmp_path


def test_boxes_masks_and_sentences_are_trained_without_semantics_and_exported_with_the_same_sentences(folder):
    (folder / "labels").rename(folder / "elsewhere")  # nothing of the task left out is needed
    common = ("-c", folder / "scenes.yml", "--tasks", "instances,captions")
    tool("train", *common, "--eval", cwd=folder)
    state = json.loads((folder / "run/latest/state.json").read_text())
    assert {"instances.mask_ap50", "instances.box_ap50", "captions.cider_d"} <= set(state["progress"]["history"][-1])
    tool("export_model", *common, "-o", f"weights={folder / 'run/latest'}", "--output_dir", folder / "out", cwd=folder)
    report = json.loads((folder / "out/scenes/export_report.json").read_text())
    checks = {check["task"]: check for check in report["runs"]["float32"]}
    assert set(checks) == {"instances", "captions"}
    assert checks["captions"]["outputs"]["tokens"] == {
        "largest_difference": 0.0,
        "relative_to_largest_value": 0.0,
        "allowed": 0.0,
    }
    assert checks["captions"]["primary"] == "cider_d"
    assert set(read_bundle(folder / "out/scenes").tasks) == {"instances", "captions"}


def test_a_run_of_all_tasks_resumes_to_the_same_bytes(folder):
    tool("verify_resume", "-c", folder / "scenes.yml", "-o", f"save_dir={folder / 'resumed'}", cwd=folder)
