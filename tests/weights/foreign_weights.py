"""Writes weight files as other toolkits do, from a ConvNeXt of ours. Without torch: its names are stand-ins."""

import os
import pickle
import re
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from io import BytesIO
from unittest import mock

import numpy as np
import paddle
from safetensors import TensorSpec, serialize_file

from ppmtl.models.backbones.convnext import ConvNeXt


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
        return [level.numpy() for level in model(paddle.to_tensor(image)).values()]


def classifier_state(model, *, torch=True):
    """Returns facebook's names with a classifier on top; linear weights as torch or Paddle stores them."""
    state = {n: v.numpy() for n, v in model.state_dict().items() if not re.match(r"norm\d", n)}
    if torch:
        state = {n: a.T if re.search(r"pwconv\d\.weight", n) else a for n, a in state.items()}
    last = model.out_specs["c5"].channels
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
        renamed[re.sub(r"^norm\.", "convnext.layernorm.", re.sub(r"^head\.", "classifier.", name))] = array
    return renamed


def write_safetensors(path, arrays, metadata=None):
    """A uint16 array is a bfloat16, as in Paddle."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    specs = {}
    for name, array in arrays.items():
        dtype = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
        specs[name] = TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
    serialize_file(specs, path, metadata)


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


def _stand_in(module, name):
    """Returns something that pickles under another module's name."""
    return type(name, (), {"__module__": module})


REBUILD = _stand_in("torch._utils", "_rebuild_tensor_v2")
STORAGES = {
    dtype: _stand_in("torch", f"{name}Storage")
    for dtype, name in {"float32": "Float", "float16": "Half", "float64": "Double", "uint16": "BFloat16"}.items()
}
TORCH, TORCH_UTILS = types.ModuleType("torch"), types.ModuleType("torch._utils")
TORCH.__dict__.update({storage.__name__: storage for storage in STORAGES.values()})
TORCH_UTILS._rebuild_tensor_v2 = REBUILD


@dataclass
class TorchZip:
    """torch.save's format."""

    storages: list = field(default_factory=list)

    def pickle(self, value):
        zip_file = self

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                if not isinstance(value, _Storage):
                    return None
                array = zip_file.storages[value.key]
                return "storage", STORAGES[array.dtype.name], str(value.key), "cpu", array.size

            def reducer_override(self, value):
                if isinstance(value, np.ndarray):
                    value = zip_file.window(value)
                if not isinstance(value, Window):
                    return NotImplemented
                storage = _Storage(zip_file.key(value.storage))
                return REBUILD, (storage, value.offset, value.shape, value.strides, False, OrderedDict())

        out = BytesIO()
        with mock.patch.dict(sys.modules, {"torch": TORCH, "torch._utils": TORCH_UTILS}):
            Pickler(out, protocol=2).dump(value)
        return out.getvalue()

    def window(self, array):
        """Returns the array on a storage of its own; what is saved transposed stays so, as in torch."""
        array = array if array.T.flags.c_contiguous else np.ascontiguousarray(array)
        strides = tuple(s // array.itemsize for s in array.strides)
        return Window(array.ravel(order="K"), 0, array.shape, strides)

    def key(self, storage):
        known = [key for key, other in enumerate(self.storages) if other is storage]
        if not known:
            self.storages.append(storage)
        return known[0] if known else len(self.storages) - 1

    def write(self, path, value):
        self.write_pickle(path, self.pickle(value))

    def write_pickle(self, path, data, byteorder="little"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", byteorder)
            for key, storage in enumerate(self.storages):
                archive.writestr(f"archive/data/{key}", storage.tobytes())
            archive.writestr("archive/version", "3\n")


@dataclass
class _Storage:
    key: int


class Hostile:
    """Pickles into a call of os.system."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)
