"""Looking into checkpoints: what is shown is true, damage is named and ends in exit code 1."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppmtl.train import checkpoint
from tools import inspect_checkpoint

ROOT = Path(__file__).resolve().parents[2]
MODEL = {
    "backbone.stem.weight": np.arange(6, dtype=np.float32).reshape(2, 3) - 1,
    "backbone.stem.bias": np.array([np.nan, 2, np.inf], np.float32),
    "backbone.low": np.array([0x3F80], np.uint16),
    "heads.seg.weight": np.ones((4, 5), np.float32),
    "heads.det.count": np.array(2**40 + 1),
}
STATE = {
    "config": {
        "model": {
            "backbone": {"type": "convnext", "dims": [2, 3]},
            "heads": {"seg": {"type": "upernet", "channels": 4}},
        },
        "train": {"best_metric": "seg.miou", "epochs": 3},
    },
    "classes": {"seg": {"names": ["道路", "tram"], "ids": [0, 1]}},
    "environment": {"paddlepaddle": "3.2.2", "command": "tools/train.py -c x.yml"},
    "progress": {"step": 7, "best": 0.5, "best_step": 6, "history": [{"step": 6, "score": 0.25, "seg.miou": 0.5}]},
}


@pytest.fixture
def run(tmp_path):
    for step in (6, 7):
        folder = checkpoint.step_folder(tmp_path, step)
        progress = {**STATE["progress"], "step": step}
        model = {**MODEL, "heads.seg.weight": MODEL["heads.seg.weight"] * step}
        tensors = {"model": model, "optimizer": {"heads.seg.weight|moment1_0": np.zeros((4, 5), np.float32)}}
        checkpoint.save(folder, tensors, {**STATE, "progress": progress})
        checkpoint.mark_latest(tmp_path, folder)
    return tmp_path


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def look(capsys, *arguments):
    code = inspect_checkpoint.main([str(a) for a in arguments])
    return code, capsys.readouterr().out


def test_a_checkpoint_is_shown_with_its_manifest_digests_and_parts(run, capsys):
    code, out = look(capsys, run / "latest")
    assert code == 0
    assert "step 7, best seg.miou 0.5000 at step 6, saved 20" in out
    assert "evaluated at step 6: score 0.2500, seg.miou 0.5000" in out
    assert "classes of seg: 2 (道路, tram)" in out
    assert "backbone: convnext dims=[2, 3]" in out
    assert "head seg: upernet channels=4" in out
    assert "paddlepaddle=3.2.2" in out
    assert out.count(", OK") == 2
    rows = [line.split() for line in out.splitlines()]
    assert ["backbone", "3", "10", "0.00"] in rows
    assert ["heads.seg", "1", "20", "0.00"] in rows


def test_tensors_are_listed_with_statistics_of_their_finite_numbers(run, capsys):
    _, out = look(capsys, run / "latest", "--filter", r"model.*backbone", "--stats")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  backbone.")}
    assert rows == {
        "backbone.stem.weight": ["2x3", "float32", "24", "-1", "4", "1.5", "0"],
        "backbone.stem.bias": ["3", "float32", "12", "2", "2", "2", "2"],
        "backbone.low": ["1", "bfloat16", "2", "1", "1", "1", "0"],
    }
    assert "optimizer.safetensors" not in out


def test_a_run_is_listed_with_what_resuming_would_take(run, capsys):
    code, out = look(capsys, run)
    assert code == 0
    assert out.count(" OK") == 2
    assert "latest -> step_0000007" in out
    assert "-r auto would resume from step_0000007" in out
    flip(run / "step_0000007" / "optimizer.safetensors")
    code, out = look(capsys, run)
    assert code == 1
    assert "DAMAGED: optimizer.safetensors: its SHA-256" in out
    assert "-r auto would resume from step_0000006" in out
    (run / "step_0000006").rename(run / ".step_0000006.old")
    _, out = look(capsys, run)
    assert "read and restored as step_0000006" in out
    assert "-r auto would resume from step_0000006" in out
    assert (run / ".step_0000006.old").exists(), "looking changes nothing"


def test_damage_is_named_and_ends_in_exit_code_1(run, capsys):
    folder = run / "step_0000007"
    flip(folder / "model.safetensors")
    code, out = look(capsys, folder)
    assert code == 1
    assert "DAMAGED: model.safetensors: its SHA-256" in out
    assert look(capsys, folder / "model.safetensors")[0] == 1
    assert look(capsys, folder / "optimizer.safetensors")[0] == 0
    os.truncate(folder / "model.safetensors", 300)
    code, out = look(capsys, folder)
    assert code == 1
    assert "model.safetensors has 300 bytes instead of" in out
    assert "optimizer.safetensors: 0.0 MiB, 1 tensors, 20 numbers" in out, "what is intact is still shown"
    os.truncate(folder / "state.json", 100)
    code, out = look(capsys, folder)
    assert code == 1
    assert "DAMAGED: state.json: not readable as JSON" in out


def test_two_checkpoints_are_compared_tensor_by_tensor(run, capsys):
    pair = (run / "step_0000006", "--compare", run / "step_0000007")
    code, out = look(capsys, *pair)
    assert code == 3
    assert "model.safetensors: 4 tensors are equal" in out, "a NaN equals the same NaN"
    assert "heads.seg.weight: at most 1 apart" in out
    assert "optimizer.safetensors: 1 tensors are equal, nothing differs" in out
    assert look(capsys, *pair, "--filter", "backbone|count|opt")[0] == 0
    (run / "step_0000007" / "optimizer.safetensors").unlink()
    with pytest.raises(ValueError, match=r"step_0000007 is damaged: optimizer\.safetensors is missing"):
        look(capsys, *pair)


def test_every_kind_of_difference_is_named_also_against_a_file(tmp_path, capsys):
    other = {n: a for n, a in MODEL.items() if n != "backbone.low"}
    other["heads.seg.weight"] = np.ones((5, 4), np.float32)
    other["heads.det.count"] = np.array(2**40)
    other["backbone.stem.bias"] = MODEL["backbone.stem.bias"].astype(np.float64)
    other["heads.cls.weight"] = np.ones(1, np.float32)
    checkpoint.save(tmp_path / "c", {"model": MODEL}, {})
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(other))
    code, out = look(capsys, tmp_path / "c", "--compare", tmp_path / "w.pdparams", "--json")
    assert code == 3
    (found,) = json.loads(out)["comparison"].values()
    assert found == {
        "same": False,
        "equal": 1,
        "missing": ["backbone.low"],
        "unexpected": ["heads.cls.weight"],
        "other_shape": ["heads.seg.weight: [4, 5] against [5, 4]"],
        "other_type": ["backbone.stem.bias: float32 against float64"],
        "differing": {"heads.det.count": 1.0},  # beyond float32's digits
    }


def test_json_says_the_same_without_nan(run, capsys):
    code, out = look(capsys, run / "latest", "--json", "--stats")
    document = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert document["manifest"]["progress"]["step"] == 7
    assert document["files"]["model.safetensors"]["parts"]["backbone"] == {"tensors": 3, "numbers": 10, "nbytes": 38}
    assert document["files"]["model.safetensors"]["table"]["backbone.stem.bias"]["non_finite"] == 2


def test_files_of_paddle_are_shown_and_hostile_ones_refused(tmp_path, capsys):
    state = {"linear_0.w_0_moment1_0": np.ones(3, "float32"), "LR_Scheduler": {"last_epoch": 4, "last_lr": 0.1}}
    (tmp_path / "w.pdopt").write_bytes(pickle.dumps(state, protocol=4))
    code, out = look(capsys, tmp_path / "w.pdopt")
    assert code == 0
    assert "no digest recorded" in out
    assert "LR_Scheduler.last_epoch: 4" in out
    (tmp_path / "evil.pdparams").write_bytes(b"\x80\x02cposix\nsystem\nX\x0c\x00\x00\x00touch marker\x85R.")
    code, out = look(capsys, tmp_path / "evil.pdparams")
    assert code == 1
    assert "names posix.system" in out
    assert "Nothing of it was run" in out
    assert not Path("marker").exists()


@pytest.mark.parametrize("given", ["nothing_here", "."])
def test_a_path_without_a_checkpoint_says_what_to_give(tmp_path, given, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="give"):
        inspect_checkpoint.main([given])


def test_it_needs_no_paddle_and_stops_quietly_when_nobody_reads_on(run):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import inspect_checkpoint as tool; "
        "code = tool.main(sys.argv[2:]); sys.exit(9 if 'paddle' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, str(ROOT / "tools"), str(run / "latest"), "--tensors"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
