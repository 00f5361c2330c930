"""Checkpoint folders: whole or absent, checked when read."""

import json

import numpy as np
import pytest
from paddle import nn
from safetensors import SafetensorError

from ppmtl.engine import checkpoint, storage

TENSORS = {
    "model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "optimizer": {"w|moment1_0": np.ones(2, np.float32)},
}


def test_what_is_saved_is_read_back(tmp_path):
    checkpoint.save(tmp_path / "step_0000001", TENSORS, {"progress": {"step": 1}})
    assert np.array_equal(checkpoint.read_tensors(tmp_path / "step_0000001")["w"], TENSORS["model"]["w"])
    assert checkpoint.read_state(tmp_path / "step_0000001")["progress"] == {"step": 1}


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "best_model"
    checkpoint.save(folder, TENSORS, {"progress": {"step": 1}})

    def full_disk(*_args, **_kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(storage, "serialize_file", full_disk)
    with pytest.raises(OSError, match=r"No space left.*Still whole there: best_model"):
        checkpoint.save(folder, TENSORS, {"progress": {"step": 2}})
    assert checkpoint.read_state(folder)["progress"]["step"] == 1
    assert checkpoint.read_tensors(folder)


def test_a_damaged_file_is_recognised(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, {})
    file = tmp_path / "c" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):
        checkpoint.read_tensors(tmp_path / "c")


def test_a_truncated_file_without_a_digest_is_recognised(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, {})
    whole = (tmp_path / "c" / "model.safetensors").read_bytes()
    (tmp_path / "alone.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        checkpoint.read_tensors(tmp_path / "alone.safetensors")


def test_a_missing_checkpoint_names_what_is_beside_it(tmp_path):
    (tmp_path / "best_model").mkdir()
    with pytest.raises(ValueError, match="best_model"):
        checkpoint.read_tensors(tmp_path / "latest")


def test_only_the_newest_steps_stay_and_resume_finds_the_last(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(checkpoint.step_folder(tmp_path, step), TENSORS, {})
        checkpoint.mark_latest(tmp_path, checkpoint.step_folder(tmp_path, step))
    checkpoint.drop_old(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_0000002", "step_0000003"]
    assert checkpoint.find_resume(tmp_path, "auto").name == "step_0000003"
    assert (tmp_path / "latest" / "state.json").is_file()


def test_resume_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint yet"):
        checkpoint.find_resume(tmp_path, "auto")
    with pytest.raises(ValueError, match="no checkpoint folder"):
        checkpoint.find_resume(tmp_path, str(tmp_path))


class Net(nn.Layer):
    def __init__(self, heads):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.heads = nn.LayerDict({name: nn.Linear(2, 3) for name in heads})


def test_weights_of_heads_that_are_not_built_are_left_out_and_others_must_match():
    arrays = {name: value.numpy() for name, value in Net(["seg", "det"]).state_dict().items()}
    small = Net(["det"])
    checkpoint.load_weights(small, arrays, "x")
    assert np.array_equal(small.heads["det"].weight.numpy(), arrays["heads.det.weight"])
    with pytest.raises(ValueError, match=r"missing: heads\.cls"):
        checkpoint.load_weights(Net(["cls"]), arrays, "x")
    arrays["backbone.weight"] = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match=r"file \[2, 5\], model \[2, 2\]"):
        checkpoint.load_weights(small, arrays, "x")


def test_state_json_is_plain_json(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, {"classes": {"seg": {"names": ["道路"], "ids": [0]}}})
    assert json.loads((tmp_path / "c" / "state.json").read_text())["classes"]["seg"]["names"] == ["道路"]
