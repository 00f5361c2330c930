"""Reading weight files: tensors come out right, damage is named, and nothing in a file is ever executed."""

import pickle

import numpy as np
import paddle
import pytest
from foreign_weights import Hostile, TorchZip, Window, write_safetensors

from ppmtl.weights.files import as_float32, read_weights


def read(path):
    return {name: as_float32(array) for name, array in read_weights(path).tensors.items()}


def test_torch_windows_share_a_storage_with_offsets_strides_and_expansion(tmp_path):
    storage = np.arange(12, dtype="float32")
    grid = storage.reshape(3, 4)
    cases = {
        "all": (Window(storage, 0, (3, 4), (4, 1)), grid),
        "transposed": (Window(storage, 0, (4, 3), (1, 4)), grid.T),
        "row": (Window(storage, 4, (4,), (1,)), grid[1]),
        "every second": (Window(storage, 1, (2, 2), (4, 2)), grid[:2, 1::2]),
        "expanded": (Window(storage, 5, (2, 3), (0, 0)), np.full((2, 3), 5)),
        "one cell of a large grid": (Window(storage, 3, (1, 1, 1), (2**22, 2**16, 2**10)), np.full((1, 1, 1), 3)),
        "scalar": (Window(storage, 7, (), ()), np.array(7)),
        "empty": (Window(storage, 0, (0, 3), (3, 1)), np.zeros((0, 3))),
    }
    TorchZip().write(tmp_path / "w.pth", {name: window for name, (window, _) in cases.items()})
    got = read(tmp_path / "w.pth")
    assert got.keys() == cases.keys()
    for name, (_, array) in cases.items():
        assert got[name].dtype == np.float32
        assert np.array_equal(got[name], array), name


def test_a_window_beyond_its_storage_is_refused(tmp_path):
    for window in (Window(np.ones(8, "float32"), 0, (9,), (1,)), Window(np.ones(8, "float32"), 7, (2,), (1,))):
        TorchZip().write(tmp_path / "w.pth", {"a": window})
        with pytest.raises(ValueError, match="a: its storage ends too early"):
            read(tmp_path / "w.pth")


def test_a_big_endian_torch_file_is_read(tmp_path):
    torch = TorchZip()
    data = torch.pickle({"a": np.arange(3, dtype="float32")})
    torch.storages = [np.arange(3, dtype=">f4")]
    torch.write_pickle(tmp_path / "big.pth", data, byteorder="big")
    assert read(tmp_path / "big.pth")["a"].tolist() == [0, 1, 2]


def test_numpy_arrays_of_any_order_and_type_are_read_from_a_pickle(tmp_path):
    grid = np.arange(6, dtype="float64").reshape(2, 3)
    tree = {"c": grid, "nested": {"f": np.asfortranarray(grid)}, "half": grid.astype("float16"), "epoch": np.int64(3)}
    for protocol in (2, 3, 4):
        (tmp_path / "w.pdparams").write_bytes(pickle.dumps(tree, protocol=protocol))
        got = read(tmp_path / "w.pdparams")
        assert set(got) == {"c", "nested.f", "half"}
        for array in got.values():
            assert np.array_equal(array, grid)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


def test_the_hostile_pickles_of_these_tests_are_really_hostile(marker):
    pickle.loads(pickle.dumps({"a": Hostile(marker)}, protocol=2))
    assert marker.exists()


HIDDEN = {
    "alone": lambda hostile: {"model": {"a": hostile}},
    "behind good tensors": lambda hostile: {"a": np.ones(3, "float32"), "later": [hostile]},
    "in a scheduler": lambda hostile: {"moment1_0": np.ones(3, "float32"), "LR_Scheduler": {"last_lr": hostile}},
}


@pytest.mark.parametrize("where", HIDDEN)
@pytest.mark.parametrize("extension", ["pth", "pdparams", "pdopt"])
def test_a_hostile_file_is_refused_and_nothing_of_it_runs(tmp_path, marker, where, extension):
    data = pickle.dumps(HIDDEN[where](Hostile(marker)), protocol=2)
    if extension == "pth":
        TorchZip().write_pickle(tmp_path / "w.pth", data)
    else:
        (tmp_path / f"w.{extension}").write_bytes(data)
    with pytest.raises(ValueError, match=r"names posix\.system(.|\n)*Nothing of it was run"):
        read(tmp_path / f"w.{extension}")
    assert not marker.exists()


NAMES = ["builtins eval", "builtins exec", "builtins getattr", "os system", "importlib import_module", "numpy load",
         "functools partial", "operator attrgetter", "pickle loads", "torch load", "paddle load", "subprocess Popen",
         "numpy.core.multiarray fromfile", "ppmtl.weights.safe_pickle load_pickle"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_cannot_name_anything_outside_the_table(tmp_path, name):
    module, attribute = name.split()
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x02c%s\n%s\n." % (module.encode(), attribute.encode()))
    with pytest.raises(ValueError, match=f"names {module}.{attribute}"):
        read(tmp_path / "w.pdparams")


def test_a_pickle_cannot_change_the_stand_ins_for_the_next_file(tmp_path):
    poison = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\x00\x00\x00__defaults__K\x01sb."
    (tmp_path / "poison.pdparams").write_bytes(poison)
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path / "poison.pdparams")
    TorchZip().write(tmp_path / "good.pth", {"a": np.ones(3, "float32")})
    assert read(tmp_path / "good.pth")["a"].tolist() == [1, 1, 1]


def test_a_pickle_cannot_change_a_tensor_after_its_check(tmp_path):
    torch = TorchZip()
    good = torch.pickle({"a": Window(np.arange(8, dtype="float32"), 0, (2,), (1,))})
    outside = pickle.dumps({"shape": (2, 2), "strides": (-3, 4)}, protocol=2)[2:-1] + b"b"  # BUILD
    built = good.rindex(b"R") + 1
    torch.write_pickle(tmp_path / "w.pth", good[:built] + outside + good[built:])
    assert read(tmp_path / "w.pth")["a"].tolist() == [0, 1], "not four numbers, some of them from before the storage"


CRAFTED = {
    "arrays of objects": pickle.dumps({"a": np.array([None, {}], dtype=object)}),
    "a storage outside the archive": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x05\x00\x00\x00../..tQK\x00K\x02\x85K\x01\x85tR.",
    "a tensor without storage": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))tR.",
    "a negative size": TorchZip().pickle({"a": Window(np.ones(2, "float32"), 0, (-4,), (1,))}),
    "a negative stride": TorchZip().pickle({"a": Window(np.ones(2, "float32"), 0, (2,), (-9,))}),
    "too many elements": TorchZip().pickle({"a": Window(np.ones(2, "float32"), 0, (2**30, 2**30), (0, 0))}),
    "nothing": b"\x80\x02",
    "an empty stack": b"\x80\x02R.",
    "an unknown opcode": b"\x80\x02\xff.",
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_pickle_ends_in_a_value_error(tmp_path, case):
    (tmp_path / "w.pdparams").write_bytes(CRAFTED[case])
    with pytest.raises(ValueError, match=r"w\.pdparams"):
        read(tmp_path / "w.pdparams")


def test_a_dict_that_holds_itself_ends(tmp_path):
    tree = {"a": np.ones(2, "float32")}
    tree["self"] = tree
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(tree))
    assert set(read(tmp_path / "w.pdparams")) == {"a"}


def test_damaged_files_are_named_and_never_half_read(tmp_path):
    weights = {"a": np.arange(4000, dtype="float32")}
    TorchZip().write(tmp_path / "w.pth", weights)
    write_safetensors(tmp_path / "w.safetensors", weights)
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(weights))
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors", tmp_path / "w.pdparams"):
        assert read(path)["a"][-1] == 3999
        data = path.read_bytes()
        wrong = [data[: len(data) // 5], data[: -len(data) // 10]]
        if path.suffix == ".pth":  # one bit: the zip's checksum sees it
            at = data.index(np.arange(2000, 2010, dtype="float32").tobytes())
            wrong.append(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        for content in wrong:
            path.write_bytes(content)
            with pytest.raises(ValueError, match="damaged"):
                read(path)


def test_safetensors_headers_that_lie_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"a": np.ones(4, "float32"), "b": np.ones(4, "float32")})
    good = path.read_bytes()
    changes = ((b"[16,32]", b"[16,36]"), (b"[16,32]", b"[20,36]"), (b'"shape":[4]', b'"shape":[5]'))
    for content in [good.replace(*change) for change in changes] + [(1 << 60).to_bytes(8, "little") + good[8:]]:
        assert content != good
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a damaged safetensors file"):
            read(path)


def test_a_type_that_is_not_read_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    header = b'{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="a has the type F8_E4M3; read are F64, F32"):
        read(path)


def test_a_safetensors_file_whose_header_length_begins_as_a_pickle_does_is_read(tmp_path):
    rest = len('{"__metadata__":{"comment":""},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')
    write_safetensors(tmp_path / "w.safetensors", {"a": np.ones(2, "float32")}, {"comment": "x" * (0x280 - rest)})
    assert (tmp_path / "w.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert read(tmp_path / "w.safetensors")["a"].tolist() == [1, 1]


STARTS = {
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "torch's format from before 1.6",
    b"<!DOCTYPE html><html>": "is a web page",
    b"version https://git-lfs.github.com/spec/v1": "git-lfs pointer",
    b"\x1f\x8b\x08": "not a weights file",
    b"": "not a weights file",
}


@pytest.mark.parametrize("start", STARTS, ids=STARTS.values())
def test_other_files_are_recognised_for_what_they_are(tmp_path, start):
    (tmp_path / "w.pth").write_bytes(start)
    with pytest.raises(ValueError, match=STARTS[start]):
        read(tmp_path / "w.pth")


def test_a_zip_that_is_not_torchs_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones(2))
    with pytest.raises(ValueError, match=r"0 data\.pkl"):
        read(tmp_path / "w.npz")


def test_what_paddle_saves_of_an_optimizer_is_read_with_its_scheduler(tmp_path):
    layer = paddle.nn.Linear(2, 3)
    schedule = paddle.optimizer.lr.LinearWarmup(paddle.optimizer.lr.CosineAnnealingDecay(1e-3, 10), 2, 0.0, 1e-3)
    optimizer = paddle.optimizer.AdamW(schedule, parameters=layer.parameters())
    layer(paddle.ones([1, 2])).sum().backward()
    optimizer.step()
    schedule.step()
    paddle.save(optimizer.state_dict(), str(tmp_path / "w.pdopt"))
    wanted = {n: v.numpy() for n, v in optimizer.state_dict().items() if isinstance(v, paddle.Tensor)}
    got = read(tmp_path / "w.pdopt")
    assert got.keys() == wanted.keys()
    assert all(np.array_equal(got[name], array) for name, array in wanted.items())
    said = read_weights(tmp_path / "w.pdopt").metadata
    assert said["LR_Scheduler.last_lr"] == "0.0005"
    assert said["LR_Scheduler.LinearWarmup_LR.last_epoch"] == "0"
    assert not any("Structured" in name for name in said)
