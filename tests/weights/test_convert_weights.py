"""Converting to a file: the same numbers as loading, complete or not at all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from foreign_weights import TorchZip, classifier_state, random_convnext, timm_names, write_safetensors
from safetensors import safe_open
from safetensors.numpy import load_file

from ppmtl.models.backbones._convnext_weights import WEIGHT_NAMES
from ppmtl.train import checkpoint
from ppmtl.weights.convert import convert, export_all
from ppmtl.weights.files import read_weights
from ppmtl.weights.pretrained import load_pretrained

ROOT = Path(__file__).resolve().parents[2]


def run_tool(folder, *arguments):
    command = [sys.executable, str(ROOT / "tools" / "convert_weights.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def timm_file(tmp_path):
    write_safetensors(tmp_path / "timm.safetensors", timm_names(classifier_state(random_convnext())))
    return tmp_path / "timm.safetensors"


def test_the_tool_writes_what_loading_gives(tmp_path, timm_file):
    result = run_tool(tmp_path, timm_file.name, "out.safetensors")
    assert result.returncode == 0, result.stderr
    assert "timm names, linear weights as in torch" in result.stdout
    assert "matched 61, missing 0, unexpected 0" in result.stdout
    assert "dropped 4 outside the backbone" in result.stdout
    wanted = {n: v.numpy() for n, v in random_convnext(output_norm=False).state_dict().items()}
    got = load_file(tmp_path / "out.safetensors")  # the library itself accepts the file
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.array_equal(got[name], array), name
    with safe_open(tmp_path / "out.safetensors", "numpy") as file:
        assert file.metadata()["format"] == "pd"
        assert len(file.metadata()["source_sha256"]) == 64
    assert load_pretrained(random_convnext(seed=1), str(tmp_path / "out.safetensors")).layout == "paddle"


def test_the_backbone_is_the_same_in_both_formats(tmp_path, timm_file):
    convert(str(timm_file), tmp_path / "out.safetensors", WEIGHT_NAMES)
    result = run_tool(tmp_path, timm_file.name, "out.pdparams", "--backbone")
    assert result.returncode == 0, result.stderr
    wanted, got = load_file(tmp_path / "out.safetensors"), paddle.load(str(tmp_path / "out.pdparams"))
    assert wanted.keys() == got.keys()
    assert all(np.array_equal(array, got[name].numpy()) for name, array in wanted.items())


def without_tensors(tmp_path):
    paddle.save({"epoch": 3}, str(tmp_path / "w.pdparams"))
    return "w.pdparams", "holds no tensor, so there is nothing to write"


def header_beyond_the_file(tmp_path):
    (tmp_path / "w.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    return "w.safetensors", "damaged safetensors file"


def nothing_there(_):
    return "gone.pth", "gone.pth does not exist"


def damaged_checkpoint(tmp_path):
    every_type(tmp_path / "c")
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return "c", "c is damaged: model.safetensors: its SHA-256"


@pytest.mark.parametrize("make", [without_tensors, header_beyond_the_file, nothing_there, damaged_checkpoint])
def test_what_cannot_be_converted_ends_in_one_line_and_writes_nothing(tmp_path, make):
    source, words = make(tmp_path)
    result = run_tool(tmp_path, source, "out.pdparams")
    assert result.returncode == 1, result.stdout
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.pdparams").exists()


def test_converting_needs_neither_torch_nor_paddle():
    code = (
        "import sys, ppmtl.weights.convert, ppmtl.models.backbones._convnext_weights; "
        "sys.exit(bool({'torch', 'paddle'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_block_that_is_missing_in_the_middle_is_noticed(tmp_path):
    state = classifier_state(random_convnext(depths=(1, 1, 4, 1)))
    TorchZip().write(tmp_path / "w.pth", {n: a for n, a in state.items() if not n.startswith("stages.2.1.")})
    with pytest.raises(ValueError, match=r"9 missing: stages\.2\.1\.(.|\n)*9 unexpected: stages\.2\.3\."):
        convert(str(tmp_path / "w.pth"), tmp_path / "out.safetensors", WEIGHT_NAMES)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_damaged_source_leaves_the_old_file_alone(tmp_path):
    torch = TorchZip()
    data = torch.pickle(classifier_state(random_convnext()))
    torch.storages[-9] = torch.storages[-9][:-1]
    torch.write_pickle(tmp_path / "w.pth", data)
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="its storage ends too early"):
        convert(str(tmp_path / "w.pth"), target, WEIGHT_NAMES)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == [target.name, "w.pth"]


def test_the_output_must_be_another_file_of_a_known_kind(tmp_path, timm_file):
    with pytest.raises(ValueError, match=r"out\.pth: the output is a \.safetensors or \.pdparams file"):
        convert(str(timm_file), tmp_path / "out.pth", WEIGHT_NAMES)
    with pytest.raises(ValueError, match="is also the input"):
        convert(str(timm_file), timm_file, WEIGHT_NAMES)
    with pytest.raises(ValueError, match=r"output is a \.pdparams file"):
        export_all(str(timm_file), tmp_path / "out.safetensors")


def test_another_toolkits_file_is_not_exported_as_it_is(tmp_path):
    TorchZip().write(tmp_path / "w.pth", classifier_state(random_convnext()))
    with pytest.raises(ValueError, match=r"lie as in torch.*--backbone"):
        export_all(str(tmp_path / "w.pth"), tmp_path / "out.pdparams")
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def every_type(folder):
    """Writes a checkpoint with each type that Paddle's layers have, and returns it."""
    arrays = {
        "backbone.weight": np.arange(6, dtype="float32").reshape(2, 3),
        "backbone.half": np.full((2, 2), 1.5, "float16"),
        "backbone.low": np.array([0x3F80, 0xC000], "uint16"),  # 1 and -2 in bfloat16
        "heads.seg.double": np.array(0.1),
        "heads.seg.count": np.array([2**40], "int64"),
        "heads.seg.mask": np.array([True, False]),
        "heads.seg.none": np.zeros((0, 3), "float32"),
    }
    checkpoint.save(folder, {"model": arrays}, {})
    return arrays


def test_paddle_and_we_load_the_same_bits_and_types_from_a_whole_checkpoint(tmp_path):
    arrays = every_type(tmp_path / "best_model")
    result = run_tool(tmp_path, "best_model", "out.pdparams")
    assert result.returncode == 0, result.stderr
    assert "7 tensors, as they are" in result.stdout
    loaded = paddle.load(str(tmp_path / "out.pdparams"))
    ours = read_weights(tmp_path / "out.pdparams").tensors
    assert loaded.keys() == ours.keys() == arrays.keys()
    for name, array in arrays.items():
        for got in (loaded[name].numpy(), ours[name]):
            assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    assert loaded["backbone.low"].dtype == paddle.bfloat16
    assert loaded["backbone.low"].astype("float32").tolist() == [1, -2]


def test_the_exported_file_names_nothing_that_numpy_before_2_lacks(tmp_path):
    every_type(tmp_path / "c")
    export_all(str(tmp_path / "c"), tmp_path / "out.pdparams")
    data = (tmp_path / "out.pdparams").read_bytes()
    assert b"ndarray" in data
    assert b"_core" not in data  # what pickle and paddle.save write with numpy 2: unknown to numpy 1.24
