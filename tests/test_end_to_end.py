"""A tiny config on CPU: train, resume, evaluate, infer, through the tools that people type."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from ppmtl.train import checkpoint

ROOT = Path(__file__).resolve().parents[1]

TINY = {
    "_base_": str(ROOT / "configs" / "allinone_demo.yml"),
    "model": {
        "backbone": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "drop_path_rate": 0.2},
        "heads": {
            "seg": {"channels": 8, "aux_channels": 8},
            "cls": {"channels": 32},
            "det": {"neck": {"channels": [8, 16, 16]}},
        },
    },
    "tasks": {
        "cls": {"classes": {"count": 4}, "input_size": [32, 32]},
        "det": {"classes": {"count": 3}, "input_size": [96, 96]},
    },
    "sources": {
        "seg": {"batch_size": 2, "transforms": [{"type": "random_scale"}, {"type": "pad_crop", "size": [64, 96]}]},
        "cls": {"batch_size": 4, "transforms": [{"type": "resize", "size": [32, 32]}, {"type": "random_erasing"}]},
        "det": {"batch_size": 2, "transforms": [{"type": "random_box_crop"}, {"type": "resize", "size": [64, 64]}]},
    },
    "optimizer": {"warmup_steps": 1},
    "train": {
        "epochs": 2,
        "steps_per_epoch": 2,
        "log_every": 1,
        "eval_every": "1 epoch",
        "save_every": 2,
        "num_workers": 0,
    },
    "infer": {"size": [64, 96]},
}
DATA_FLAGS = (
    "--size 64 96 --det_size 96 96 --cls_size 32 32 --sign_classes 3 --vehicle_classes 4 --workers 2 "
    "--seg_images 6 3 2 --det_images 6 3 2 --cls_images 12 6 2"
)
COMMON = ("-c", "tiny.yml", "-o", "data_root=data")
WEIGHTS = ("-o", "weights=full/best_model")
EVALUATE = ("eval", *COMMON, *WEIGHTS, "--output_eval")
SUBMIT = ("submit", *COMMON, *WEIGHTS, "--tta", "--scales", "1.0", "--out")


def tool(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def ok(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    ok(tool("make_demo_data", "--out", "data", *DATA_FLAGS.split(), cwd=folder))
    (folder / "tiny.yml").write_text(yaml.safe_dump(TINY))
    return folder


@pytest.fixture(scope="module")
def trained(work) -> Path:
    out = ok(tool("train", *COMMON, "-o", "save_dir=full", "--eval", cwd=work))
    assert "Epoch: [2]" in out
    assert "loss_seg" in out
    assert "eta:" in out
    return work / "full"


def test_a_run_leaves_weights_config_environment_and_log(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"best_model", "latest", "step_0000004", "config.yml", "environment.json", "train.log"} <= names
    state = json.loads((trained / "latest" / "state.json").read_text())
    assert state["progress"]["step"] == 4
    assert state["classes"]["seg"]["names"][0] == "road"
    assert [entry["step"] for entry in state["progress"]["history"]] == [2, 4]


def test_stopping_and_resuming_ends_with_the_same_bytes(work, trained):
    ok(tool("train", *COMMON, "-o", "save_dir=half", "train.keep_last=9", "--eval", cwd=work))
    for later in ("step_0000004", "best_model"):
        for file in (work / "half" / later).iterdir():
            file.unlink()
        (work / "half" / later).rmdir()
    out = ok(tool("train", *COMMON, "-o", "save_dir=half", "train.num_workers=1", "--eval", "-r", cwd=work))
    assert "resumed from half/step_0000002 at step 2" in out
    for stem in ("model", "optimizer"):
        full = load_file(trained / "step_0000004" / f"{stem}.safetensors")
        resumed = load_file(work / "half" / "step_0000004" / f"{stem}.safetensors")
        assert full.keys() == resumed.keys()
        for name, value in full.items():
            assert np.array_equal(value, resumed[name]), name


def test_evaluation_prints_the_score_last_and_writes_files(work, trained):
    out = ok(tool(*EVALUATE, "eval", "--classwise", cwd=work))
    assert out.strip().splitlines()[-1].startswith("score ")
    document = json.loads((work / "eval" / "metrics.json").read_text())
    assert set(document["tasks"]) == {"seg", "cls", "det"}
    for key in ("miou", "miou_absent_zero", "miou_absent_one"):
        assert key in document["tasks"]["seg"]
    assert (work / "eval" / "seg_confusion.png").stat().st_size > 1000
    # what training measured for the weights that it kept is what eval.py measures
    best = json.loads((trained / "best_model" / "state.json").read_text())["progress"]
    entry = next(e for e in best["history"] if e["step"] == best["best_step"])
    assert document["tasks"]["seg"]["miou"] == entry["seg.miou"]
    assert document["score"] == pytest.approx(entry["score"])


def test_inference_draws_and_writes_json_with_one_backbone_run(work, trained):  # noqa: ARG001
    images = work / "data" / "track1_test_data" / "seg" / "images" / "test"
    command = ("infer", *COMMON, *WEIGHTS, "--per_task_size", "False", "--infer_dir", str(images), "--output_dir")
    ok(tool(*command, "out", cwd=work))
    written = sorted((work / "out").glob("*.json"))
    assert len(written) == 2
    document = json.loads(written[0].read_text())
    assert document["backbone_runs"] == 1
    assert set(document) >= {"seg", "cls", "det", "size"}
    assert written[0].with_suffix(".jpg").is_file()
    before = {p.name: p.read_bytes() for p in images.iterdir()}
    assert tool(*command, str(images), cwd=work).returncode == 1  # the drawn images would replace the originals
    assert {p.name: p.read_bytes() for p in images.iterdir()} == before


def test_a_run_folder_alone_predicts_without_its_data(work, trained):
    images = work / "data" / "track1_test_data" / "seg" / "images" / "test"
    far = work / "far"
    far.mkdir()
    result = tool("infer", "-o", f"weights={trained}", "infer.size=[96, 96]", "--infer_dir", str(images), cwd=far)
    ok(result)
    assert f"config: {trained / 'best_model' / 'state.json'} (-c takes another)" in result.stderr
    document = json.loads(next((far / "output" / "infer").glob("*.json")).read_text())
    assert document["backbone_runs"] == 3  # the sizes that the tasks are evaluated at


def test_a_partial_evaluation_leaves_the_full_one_alone(work, trained):
    full = trained / "eval" / "metrics.json"
    full.parent.mkdir(exist_ok=True)
    full.write_text("full")
    out = ok(tool("eval", "-o", f"weights={trained}", "--limit", "1", "--tasks", "seg", cwd=work))
    assert full.read_text() == "full"
    assert "a partial evaluation (--tasks seg --limit 1)" in out
    document = json.loads((trained / "eval_seg_first1" / "metrics.json").read_text())
    assert document["partial"] == ["--tasks seg", "--limit 1"]
    assert document["weights"] == str(trained / "best_model")


def test_a_second_training_in_the_same_folder_is_refused_and_changes_nothing(work, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if "eval" not in path.name}
    result = tool("train", *COMMON, "-o", "save_dir=full", cwd=work)
    assert result.returncode == 2
    assert "save_dir: full holds a run already (best_model" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_one_task_trains_without_the_data_of_the_others(work):
    other = ("-o", "sources.seg.dataset.images=gone", "eval.datasets.cls.images=gone", "train.epochs=1", "save_dir=one")
    out = ok(tool("train", *COMMON, *other, "--tasks", "det", "--eval", cwd=work))
    assert "loss_det" in out
    assert "loss_seg" not in out


def test_missing_data_stops_before_anything_is_built(work):
    result = tool("train", "-c", str(ROOT / "configs" / "allinone_traffic.yml"), "--eval", cwd=work)
    assert result.returncode == 2
    for text in ("track1_train_data/seg/images/train", "dec/val.json", "make_demo_data.py --out datasets", "data_root"):
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert not (work / "output").exists()


def test_all_mistakes_of_a_config_come_in_one_message(work):
    wrong = ("optimizer.learning_rte=1", "train.epochs=many", "model.backbone.arch=huge", "sources.det.tasks=[dett]")
    result = tool("train", *COMMON, "-o", *wrong[:2], "-o", *wrong[2:], cwd=work)
    assert result.returncode == 2
    for text in ("learning_rate", "train.epochs", "atto"):
        assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_loss_that_is_not_finite_names_task_term_step_and_files(work):
    blown = ("optimizer.learning_rate=1e30", "optimizer.clip_norm=null", "optimizer.warmup_steps=0", "save_dir=blown")
    result = tool("train", *COMMON, "-o", *blown, cwd=work)
    assert result.returncode == 1
    for text in ("task '", "term '", "at step", ".jpg"):
        assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_weights_become_a_scored_submission_that_resumes(work, trained):  # noqa: ARG001
    ok(tool(*SUBMIT, "pred.json", cwd=work))
    first = (work / "pred.json").read_bytes()
    checked = ok(tool("submit", "check", "pred.json", *COMMON, cwd=work))
    assert "pred.json: 0 errors" in checked
    assert "official-2.7.0" in checked
    assert "strict" in checked
    # half of the images are there already, as after an interruption
    assert "'seg': 2" in ok(tool(*SUBMIT, "pred.json", cwd=work))
    assert (work / "pred.json").read_bytes() == first


def test_two_processes_submit_the_bytes_of_one(work, trained):  # noqa: ARG001
    if not (work / "pred.json").exists():  # else from the test above
        ok(tool(*SUBMIT, "pred.json", cwd=work))
    ok(tool(*SUBMIT, "pred2.json", "--nprocs", "2", cwd=work))
    assert (work / "pred2.json").read_bytes() == (work / "pred.json").read_bytes()


def test_two_processes_measure_and_draw_what_one_does(work, trained):  # noqa: ARG001
    if not (work / "eval").exists():  # else from the test above
        ok(tool(*EVALUATE, "eval", cwd=work))
    ok(tool(*EVALUATE, "eval2", "--visualize", "1", "--nprocs", "2", cwd=work))
    alone, together = (json.loads((work / f / "metrics.json").read_text()) for f in ("eval", "eval2"))
    for task, metrics in alone["tasks"].items():
        assert _without_time(together["tasks"][task]) == _without_time(metrics)
    assert together["score"] == alone["score"]
    assert len(list((work / "eval2").glob("*_000.jpg"))) == 3


def _without_time(metrics):
    return {key: value for key, value in metrics.items() if "second" not in key}


def test_a_fast_dev_run_tries_everything_and_leaves_the_run_alone(work):
    out = ok(tool("train", *COMMON, "-o", "save_dir=dev", "--fast_dev_run", cwd=work))
    assert "step: 2/2" in out
    assert "score" in out
    assert "resumed from dev/fast_dev_run/step_0000002 at step 2" in out
    assert [p.name for p in (work / "dev").iterdir()] == ["fast_dev_run"]


def test_a_run_that_does_not_become_better_stops_early_and_says_so(work):
    out = ok(tool("train", *COMMON, "-o", "save_dir=early", "train.epochs=9", "train.steps_per_epoch=1",
                  "train.early_stop={patience: 1, min_delta: 0.9}", "train.save_every=null", "--eval", cwd=work))  # fmt: skip
    assert "stopped (score did not become better in 1 evaluations (train.early_stop)) after 2 steps" in out
    assert (work / "early" / "step_0000002").is_dir()


def test_early_stop_without_evaluation_is_refused_before_anything_is_read(work):
    result = tool("train", *COMMON, "-o", "train.early_stop.patience=2", cwd=work)
    assert result.returncode == 2
    assert "add --eval" in result.stderr


def test_a_signal_saves_and_gives_the_command_to_go_on(work):
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *COMMON, "-o", "save_dir=cut", "train.epochs=500"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "step: 1/" in line:
                process.send_signal(signal.SIGTERM)
    out = "".join(lines)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "stopped (SIGTERM)" in out
    assert f"continue with: python {' '.join(command[1:])} -r auto" in out
    assert (work / "cut" / "latest" / "state.json").is_file()


@pytest.fixture(scope="module")
def verified(work):
    """What verify_resume prints; its runs are in work / "verified"."""
    return ok(tool("verify_resume", *COMMON, "--tasks", "cls", "--steps", "2", "--work_dir", "verified", cwd=work))


def test_verify_resume_kills_a_run_and_finds_the_same_bytes(verified):
    assert "killed after" in verified
    assert "THE SAME BYTES: " in verified
    assert "tensors of optimizer" in verified


@pytest.mark.usefixtures("verified")
def test_verify_resume_says_what_differs(work):
    from tools.verify_resume import differences

    one, other = work / "verified" / "one", work / "verified" / "other"
    for copy in (one, other):
        shutil.copytree(work / "verified" / "killed", copy, symlinks=True)
    assert differences(one, other, 4) == []
    state = checkpoint.read_state(one / "step_0000004")
    arrays = checkpoint.read_tensors(one / "step_0000004", "raw")
    arrays["backbone.norm0.bias"][0] += 1
    optimizer = checkpoint.read_tensors(one / "step_0000004", "optimizer")
    state["progress"]["best"] = 0.5
    model = checkpoint.read_tensors(one / "step_0000004")
    checkpoint.save(other / "step_0000004", {"model": model, "raw": arrays, "optimizer": optimizer}, state)
    found = differences(one, other, 4)
    assert "progress" in found[0]
    assert "    backbone.norm0.bias: at most 1 apart" in found


def test_compare_tasks_trains_alone_and_together_and_goes_on_where_it_was(work):
    arguments = ("compare_tasks", *COMMON, "--tasks", "cls,det", "--steps", "1", "--out", "compared")
    out = ok(tool(*arguments, cwd=work))
    assert out.count("seed 42 ->") == 3
    assert "| parameters" in out
    assert "delta-m" in out
    assert (work / "compared" / "comparison.md").is_file()
    logs = [path.read_text() for path in sorted((work / "compared").glob("*/train.log"))]
    ok(tool(*arguments, cwd=work))
    assert [path.read_text() for path in sorted((work / "compared").glob("*/train.log"))] == logs
    other = tool(*arguments, "-o", "optimizer.weight_decay=0", cwd=work)
    assert other.returncode == 1
    assert "other settings" in other.stderr
