"""Checkpoint folders: complete or absent, checked when read."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paddle import nn
from safetensors import safe_open

from ppmtl.train import checkpoint

TENSORS = {
    "model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "optimizer": {"w|moment1_0": np.ones(2, np.float32)},
}


def test_what_is_saved_is_read_back(tmp_path):
    checkpoint.save(tmp_path / "step_0000001", TENSORS, {"progress": {"step": 1}, "names": ("道路",)})
    assert np.array_equal(checkpoint.read_tensors(tmp_path / "step_0000001")["w"], TENSORS["model"]["w"])
    assert checkpoint.read_state(tmp_path / "step_0000001")["progress"] == {"step": 1}
    assert json.loads((tmp_path / "step_0000001" / "state.json").read_text())["names"] == ["道路"]


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
    intact = (tmp_path / "c" / "model.safetensors").read_bytes()
    (tmp_path / "alone.safetensors").write_bytes(intact[:-4])
    with pytest.raises(ValueError, match="a damaged safetensors file"):
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
    with pytest.raises(ValueError, match=r"state\.json is missing"):
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


def test_bfloat16_goes_through_bit_by_bit_and_is_called_so_in_the_file(tmp_path):
    low = np.array([0x3F80, 0xC000, 0x7FC0, 1], np.uint16)  # Paddle's numpy() of a bfloat16: 1, -2, NaN, a denormal
    tensors = {"w": low.reshape(2, 2), "b": np.ones(2, np.float32), "n": np.array(3), "m": np.array([True, False])}
    checkpoint.save(tmp_path / "c", {"model": tensors}, {})
    got = checkpoint.read_tensors(tmp_path / "c")
    for name, array in tensors.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        assert got[name].tobytes() == array.tobytes(), name
    with safe_open(tmp_path / "c" / "model.safetensors", "np") as file:
        assert file.get_slice("w").get_dtype() == "BF16"


@pytest.mark.parametrize("stored, built", [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float32")])
def test_weights_of_another_precision_are_converted(tmp_path, stored, built):
    source, target = Net(["det"]), Net(["det"])
    source.to(dtype=stored)
    target.to(dtype=built)
    checkpoint.save(tmp_path / "c", {"model": {n: v.numpy() for n, v in source.state_dict().items()}}, {})
    checkpoint.load_weights(target, checkpoint.read_tensors(tmp_path / "c"), "x")
    assert str(target.backbone.weight.dtype).endswith(built)
    wanted = source.backbone.weight.astype("float32").astype(built).astype("float32").numpy()
    assert np.array_equal(target.backbone.weight.astype("float32").numpy(), wanted)


def test_checkpoints_can_be_handled_without_paddle():
    code = "import sys, ppmtl.train.checkpoint; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
