"""Writes weight files as other toolkits do, from a ConvNeXt of ours. No torch: its zip is written by hand."""

import json
import pickle
import re
import zipfile
from dataclasses import dataclass, field

import numpy as np
import paddle

from ppmtl.models.backbones.convnext import ConvNeXt

TORCH_STORAGE = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "float64": "DoubleStorage",
    "uint16": "BFloat16Storage",
}


def random_convnext(seed=0, **arguments):
    """Returns a small ConvNeXt whose every parameter is random, so that no misplaced tensor goes unnoticed."""
    model = ConvNeXt(**{"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "drop_path_rate": 0.0, **arguments})
    rng = np.random.default_rng(seed)
    for value in model.parameters():
        value.set_value(rng.normal(0, 0.3, value.shape).astype("float32"))
    model.eval()
    return model


def features(model, seed=5):
    with paddle.no_grad():
        image = np.random.default_rng(seed).normal(size=(1, 3, 64, 96)).astype("float32")
        return [level.numpy() for level in model(paddle.to_tensor(image))]


def classifier_state(model, *, torch):
    """Returns facebook's names with a classifier on top; linear weights as torch or Paddle stores them."""
    state = {n: v.numpy() for n, v in model.state_dict().items() if not re.match(r"norm\d", n)}
    if torch:
        state = {n: a.T if re.search(r"pwconv\d\.weight", n) else a for n, a in state.items()}
    last = model.out_specs[-1].channels
    ones = {"norm.weight": np.ones(last, "float32"), "norm.bias": np.ones(last, "float32")}
    return {**state, **ones, "head.weight": np.ones((7, last), "float32"), "head.bias": np.ones(7, "float32")}


def timm_names(state, dot="."):
    renamed = {}
    for name, array in state.items():
        name = re.sub(r"^downsample_layers\.0\.(\d)", rf"stem{dot}\1", name)
        name = re.sub(r"^downsample_layers\.(\d)\.(\d)", rf"stages{dot}\1.downsample.\2", name)
        name = re.sub(r"^stages\.(\d)\.(\d+)\.", rf"stages{dot}\1.blocks.\2.", name)
        for ours, theirs in (("dwconv", "conv_dw"), ("pwconv1", "mlp.fc1"), ("pwconv2", "mlp.fc2")):
            name = name.replace(ours, theirs)
        name = re.sub(r"^norm\.", "head.norm.", re.sub(r"^head\.", "head.fc.", name))
        if dot == "." or not name.startswith("head"):
            renamed[name] = array
    return renamed


def hugging_face_names(state):
    renamed = {}
    for name, array in state.items():
        name = name.replace("downsample_layers.0.0", "convnext.embeddings.patch_embeddings")
        name = name.replace("downsample_layers.0.1", "convnext.embeddings.layernorm")
        name = re.sub(r"^downsample_layers\.(\d)\.(\d)", r"convnext.encoder.stages.\1.downsampling_layer.\2", name)
        name = re.sub(r"^stages\.(\d)\.(\d+)\.", r"convnext.encoder.stages.\1.layers.\2.", name)
        name = name.replace("gamma", "layer_scale_parameter").replace(".norm.", ".layernorm.")
        renamed[
            name.replace("head.", "classifier.").replace("norm.", "convnext.layernorm.", name.startswith("norm."))
        ] = array
    return renamed


def write_safetensors(path, arrays, metadata=None, bf16=False):
    header, body = {"__metadata__": metadata} if metadata else {}, b""
    for name, array in arrays.items():
        raw = to_bf16(array).tobytes() if bf16 else np.ascontiguousarray(array).tobytes()
        dtype = "BF16" if bf16 else {"float32": "F32", "float16": "F16"}[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def to_bf16(array):
    """Returns the upper halves of float32 numbers, as uint16."""
    return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)


@dataclass
class Window:
    """A tensor on a storage that others may share."""

    storage: np.ndarray
    offset: int
    shape: tuple
    strides: tuple


@dataclass
class TorchZip:
    """torch.save's format, opcode by opcode (protocol 2)."""

    storages: list = field(default_factory=list)

    def pickle(self, value):
        return b"\x80\x02" + self._dump(value) + b"."

    def write(self, path, value):
        self.write_pickle(path, self.pickle(value))

    def write_pickle(self, path, data):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", "little")
            for key, storage in enumerate(self.storages):
                archive.writestr(f"archive/data/{key}", storage.tobytes())
            archive.writestr("archive/version", "3\n")

    def _dump(self, value):
        if isinstance(value, dict):
            items = b"".join(self._dump(k) + self._dump(v) + b"s" for k, v in value.items())
            return b"ccollections\nOrderedDict\n)R" + items
        if isinstance(value, str):
            return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return b"J" + value.to_bytes(4, "little", signed=True)
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self._dump, value)) + b"t"
        if isinstance(value, np.ndarray):
            strides = tuple(s // value.itemsize for s in value.strides)
            if not value.flags.c_contiguous and value.T.flags.c_contiguous:  # saved transposed, as torch does
                value = Window(value.T.reshape(-1), 0, value.shape, strides)
            else:
                value = np.ascontiguousarray(value)
                value = Window(value.reshape(-1), 0, value.shape, tuple(s // value.itemsize for s in value.strides))
        assert isinstance(value, Window)
        known = [index for index, storage in enumerate(self.storages) if storage is value.storage]
        if not known:
            self.storages.append(value.storage)
        key = known[0] if known else len(self.storages) - 1
        kind = f"ctorch\n{TORCH_STORAGE[str(value.storage.dtype)]}\n".encode()
        numel = self._dump(int(value.storage.size))
        storage = b"(" + self._dump("storage") + kind + self._dump(str(key)) + self._dump("cpu") + numel + b"tQ"
        rest = b"".join(map(self._dump, (value.offset, value.shape, value.strides, False, {})))
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


class Hostile:
    """Pickles into a call of os.system."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


def hostile_pickle(marker):
    return pickle.dumps({"model": {"a": Hostile(marker)}}, protocol=2)
