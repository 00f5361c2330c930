"""Nodes for the end of a model.onnx: thresholds, suppression and order of boxes, as ``Detection.decode`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from ppmtl.bundle.settings import IMAGES
from ppmtl.tasks.base import Task
from ppmtl.tasks.detection import Detection

# One image's raw arrays and ``images`` -> the best boxes. Boxes are cut to the image, empty ones score 0. NonMaxSuppression has
# no limit over all classes: TopK takes the best of what is left, equal scores in their order.
_VISIBLE = """
    shape = Shape <start = 1, end = 3> (images)
    sides = Cast <to = 1> (shape)
    limits = Gather (sides, corners)
    one_image = Squeeze (boxes, first)
    positive = Relu (one_image)
    clipped = Min (positive, limits)
    left, top, right, bottom = Split <axis = 1> (clipped)
    width = Sub (right, left)
    height = Sub (bottom, top)
    wide = Relu (width)
    high = Relu (height)
    area = Mul (wide, high)
    visible = Greater (area, zero)
    factor = Cast <to = 1> (visible)
    plain = Squeeze (scores, first)
    pairs = Mul (plain, factor)
"""
_SUPPRESSED = """
    columns = Transpose <perm = [1, 0]> (pairs)
    by_class = Unsqueeze (columns, first)
    batch_of_one = Unsqueeze (clipped, first)
    triples = NonMaxSuppression (batch_of_one, by_class, most, iou, threshold)
    found = Gather <axis = 1> (triples, swapped)
"""
_ABOVE = """
    above = Greater (pairs, threshold)
    coordinates = NonZero (above)
    found = Transpose <perm = [1, 0]> (coordinates)
"""
_BEST = """
    values = GatherND (pairs, found)
    length = Shape (values)
    count = Min (length, most)
    final_scores, order = TopK (values, count)
    chosen = Gather <axis = 0> (found, order)
    rows, labels = Split <axis = 1> (chosen)
    row = Squeeze (rows, second)
    final_classes = Squeeze (labels, second)
    final_boxes = Gather <axis = 0> (clipped, row)
"""
# Of instances: a mask is the sigmoid of its coefficients times <task>_prototypes
_COEFFICIENTS = """
    final_coefficients = Gather <axis = 1> (coefficients, row)
"""


def add_final_boxes(file: Path, tasks: Mapping[str, Task[Any]]) -> None:
    """Rewrites a model.onnx so that the boxes of detections come thresholded, suppressed and sorted."""
    model = onnx.load(file)
    for name, task in tasks.items():
        if isinstance(task, Detection):
            _append(model, name, task)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _append(model: onnx.ModelProto, name: str, task: Detection) -> None:
    """Nodes after the raw arrays of one task; what they give becomes outputs in the raw ones' place."""
    masks = any(value.name == f"{name}_coefficients" for value in model.graph.output)
    raw = ("boxes", "scores", "coefficients") if masks else ("boxes", "scores")
    rename(model, {f"{name}_{array}": f"{name}_raw_{array}" for array in raw})
    parts = [_VISIBLE, _ABOVE if task.nms_iou is None else _SUPPRESSED, _BEST, _COEFFICIENTS if masks else ""]
    parsed = parser.parse_graph(f"final () => () {{{''.join(parts)}}}")
    own = {"images": IMAGES} | {array: f"{name}_raw_{array}" for array in raw}
    constants = {
        "corners": ("int64", [1, 0, 1, 0]), "swapped": ("int64", [2, 1]), "first": ("int64", [0]), "second": ("int64", [1]),
        "zero": ("float32", 0), "threshold": ("float32", [task.score_threshold]), "iou": ("float32", [task.nms_iou or 0]),
        "most": ("int64", [task.max_detections]),
    }  # fmt: skip
    read = {key for node in parsed.node for key in node.input}
    for key, (kind, value) in ((key, constants[key]) for key in constants if key in read):
        own[key] = f"{name}_final_{key}"
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), own[key]))
    raw_outputs = set(own.values())
    own |= {f"final_{what}": f"{name}_{what}" for what in (*raw, "classes")}
    for node in parsed.node:
        for names in (node.input, node.output):
            names[:] = [own.get(key, f"{name}_final_{key}") for key in names]
        model.graph.node.append(node)
    kept = [value for value in model.graph.output if value.name not in raw_outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    number = f"{name}_found"
    shapes: dict[str, list[str | int | None]] = {"boxes": [number, 4], "coefficients": [1, number, None]}
    for what in (*raw, "classes"):
        element = onnx.TensorProto.INT64 if what == "classes" else onnx.TensorProto.FLOAT
        shape = shapes.get(what, [number])
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}_{what}", element, shape))


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Gives tensors other names, {old: new}."""
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(key, key) for key in values]
    for value in (*model.graph.output, *model.graph.value_info):
        value.name = names.get(value.name, value.name)
