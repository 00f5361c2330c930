"""What the tests of exported bundles share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from paddle.pir_utils import OldIrGuard

TASKS = ("seg", "cls", "det")
TOLERANCE = {"probs": 1e-5, "scores": 1e-5, "boxes": 2e-3}  # boxes in pixels, of up to 700


def assert_equal(raw, wanted) -> None:
    assert raw.keys() == wanted.keys()
    for task in wanted:
        assert raw[task].keys() == wanted[task].keys()
        for name, array in wanted[task].items():
            assert raw[task][name].shape == array.shape
            np.testing.assert_allclose(raw[task][name], array, rtol=0, atol=TOLERANCE[name], err_msg=f"{task}.{name}")


def stored(folder: Path, stem: str) -> tuple[dict[str, list[int]], set[str]]:
    """Returns ({parameter: shape}, operator types) of a .pdmodel."""
    with OldIrGuard():
        program = paddle.static.Program.parse_from_string((folder / f"{stem}.pdmodel").read_bytes())
        block = program.global_block()
        parameters = {
            v.name: list(v.shape) for v in block.vars.values() if v.persistable and v.name not in ("feed", "fetch")
        }
        return parameters, {op.type for op in block.ops}


def count(shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes)


def noise(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, height, width, 3), np.uint8)


def write_raw_boxes(file: Path, raw: dict[str, np.ndarray]) -> None:
    """A model.onnx of a task "det" that answers every image with these arrays."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    stored = [numpy_helper.from_array(array, f"stored_{name}") for name, array in raw.items()]
    nodes = [helper.make_node("Identity", [f"stored_{name}"], [f"det_{name}"]) for name in raw]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, "height", "width", 3])
    outputs = [helper.make_tensor_value_info(f"det_{name}", TensorProto.FLOAT, a.shape) for name, a in raw.items()]
    graph = helper.make_graph(nodes, "raw", [images], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, file)
