"""Converting to a file: the same numbers as loading, tensor by tensor, whole or not at all."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import paddle
import pytest
from foreign_weights import TorchZip, classifier_state, features, random_convnext, timm_names, write_safetensors
from safetensors import safe_open
from safetensors.numpy import load_file

from ppmtl.train import checkpoint
from ppmtl.weights import convert as convert_module
from ppmtl.weights.convert import convert, export_all
from ppmtl.weights.pretrained import load_pretrained

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def timm_file(tmp_path):
    write_safetensors(tmp_path / "timm.safetensors", timm_names(classifier_state(random_convnext(), torch=True)))
    return tmp_path / "timm.safetensors"


def test_the_tool_writes_what_loading_gives(tmp_path, timm_file):
    tool = [sys.executable, str(ROOT / "tools" / "convert_weights.py"), str(timm_file), "out.safetensors"]
    result = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "timm names, linear weights as in torch" in result.stdout
    assert "matched 61, missing 0, unexpected 0" in result.stdout
    wanted = {n: v.numpy() for n, v in random_convnext(output_norm=False).state_dict().items()}
    got = load_file(tmp_path / "out.safetensors")  # the library itself accepts the file
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.array_equal(got[name], array), name
    with safe_open(tmp_path / "out.safetensors", "numpy") as file:
        assert file.metadata()["format"] == "pd"
        assert len(file.metadata()["source_sha256"]) == 64
    target = random_convnext(seed=1, output_norm=False)
    report = load_pretrained(target, str(tmp_path / "out.safetensors"))
    assert report.layout == "paddle"
    assert np.array_equal(features(target)[3], features(random_convnext(output_norm=False))[3])


def test_a_mistake_ends_in_one_line_without_a_traceback(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "convert_weights.py"), "gone.pth", "out.safetensors"]
    result = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "gone.pth does not exist" in result.stderr
    assert "Traceback" not in result.stderr


def test_converting_needs_neither_torch_nor_paddle():
    code = "import sys, ppmtl.weights.convert; sys.exit(bool({'torch', 'paddle'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_block_that_is_missing_in_the_middle_is_noticed(tmp_path):
    state = classifier_state(random_convnext(depths=(1, 1, 4, 1)), torch=True)
    TorchZip().write(tmp_path / "w.pth", {n: a for n, a in state.items() if not n.startswith("stages.2.1.")})
    with pytest.raises(ValueError, match=r"9 missing: stages\.2\.1\.(.|\n)*9 unexpected: stages\.2\.3\."):
        convert(str(tmp_path / "w.pth"), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_an_interrupted_conversion_leaves_the_old_file_alone(tmp_path, timm_file, monkeypatch):
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"old")

    def broken(out, *_):
        out.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(convert_module, "_write", broken)
    with pytest.raises(OSError, match="disk full"):
        convert(str(timm_file), target)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.safetensors", "timm.safetensors"]


def test_the_output_must_be_another_file_of_a_known_kind(tmp_path, timm_file):
    with pytest.raises(ValueError, match=r"out\.pth: the output is a \.safetensors or \.pdparams file"):
        convert(str(timm_file), tmp_path / "out.pth")
    with pytest.raises(ValueError, match="is also the input"):
        convert(str(timm_file), timm_file)


@pytest.mark.parametrize("format_name", ["pth", "safetensors"])
def test_a_conversion_holds_one_tensor_at_a_time(tmp_path, format_name):
    model = random_convnext(depths=(1, 1, 12, 1), dims=(64, 128, 192, 64))
    state = classifier_state(model, torch=True)
    path = tmp_path / f"w.{format_name}"
    if format_name == "pth":
        TorchZip().write(path, state)
    else:
        write_safetensors(path, state)
    largest = max(array.nbytes for array in state.values())
    del state
    tracemalloc.start()
    convert(str(path), tmp_path / "out.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # as read and transposed, plus 1 MiB blocks while the digest is taken, plus some for names
    assert peak < 2 * largest + (3 << 20)
    assert path.stat().st_size > 3 * peak


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


def test_paddle_loads_the_same_bits_and_types_from_a_whole_checkpoint(tmp_path):
    arrays = every_type(tmp_path / "best_model")
    tool = [sys.executable, str(ROOT / "tools" / "convert_weights.py"), "best_model", "out.pdparams"]
    result = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "7 tensors, as they are" in result.stdout
    loaded = paddle.load(str(tmp_path / "out.pdparams"))
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        got = loaded[name].numpy()
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    assert loaded["backbone.low"].dtype == paddle.bfloat16
    assert loaded["backbone.low"].astype("float32").tolist() == [1, -2]


def test_a_layer_takes_the_exported_weights(tmp_path):
    source, target = random_convnext(), random_convnext(seed=1)
    checkpoint.save(tmp_path / "c", {"model": {n: v.numpy() for n, v in source.state_dict().items()}}, {})
    export_all(str(tmp_path / "c"), tmp_path / "out.pdparams")
    assert target.set_state_dict(paddle.load(str(tmp_path / "out.pdparams"))) == ([], [])
    assert np.array_equal(features(target)[3], features(source)[3])


def test_numpy_before_2_can_read_the_exported_file(tmp_path):
    every_type(tmp_path / "c")
    export_all(str(tmp_path / "c"), tmp_path / "out.pdparams")
    data = (tmp_path / "out.pdparams").read_bytes()
    assert b"numpy.core.multiarray" in data
    assert b"numpy._core" not in data  # what pickle and paddle.save write with numpy 2: unknown to numpy 1.24


def test_the_trunk_is_the_same_in_both_formats(tmp_path, timm_file):
    convert(str(timm_file), tmp_path / "out.safetensors")
    convert(str(timm_file), tmp_path / "out.pdparams")
    wanted, got = load_file(tmp_path / "out.safetensors"), paddle.load(str(tmp_path / "out.pdparams"))
    assert wanted.keys() == got.keys()
    assert all(np.array_equal(array, got[name].numpy()) for name, array in wanted.items())


def test_another_toolkits_file_is_not_exported_as_it_is(tmp_path, timm_file):
    TorchZip().write(tmp_path / "w.pth", classifier_state(random_convnext(), torch=True))
    with pytest.raises(ValueError, match=r"lie as in torch.*--trunk"):
        export_all(str(tmp_path / "w.pth"), tmp_path / "out.pdparams")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["timm.safetensors", "w.pth"]
    with pytest.raises(ValueError, match=r"output is a \.pdparams file"):
        export_all(str(timm_file), tmp_path / "out.safetensors")


def test_a_damaged_checkpoint_is_not_exported(tmp_path):
    every_type(tmp_path / "c")
    file = tmp_path / "c" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    tool = [sys.executable, str(ROOT / "tools" / "convert_weights.py"), "c", "out.pdparams"]
    result = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "c is damaged: model.safetensors: its SHA-256" in result.stderr
    assert not (tmp_path / "out.pdparams").exists()


def test_an_export_holds_one_tensor_at_a_time(tmp_path):
    arrays = {f"backbone.{i}": np.ones((512, 512), np.float32) for i in range(16)}
    checkpoint.save(tmp_path / "c", {"model": arrays}, {})
    del arrays
    tracemalloc.start()
    export_all(str(tmp_path / "c"), tmp_path / "out.pdparams")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20  # of 16 MiB
