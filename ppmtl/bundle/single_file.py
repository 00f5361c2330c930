"""model.onnx beside a bundle's graphs: the backbone and all heads in one graph, for programs without ppmtl.

It takes images (B, H, W, 3) uint8 RGB and gives <task>_<raw array> for every task. With final boxes it takes one image per
run, and boxes come suppressed: <task>_boxes (K, 4) float32 xyxy input pixels, <task>_scores (K,) and <task>_classes (K,)
int64, best first, which is what ``Detection.decode`` makes of the raw arrays; <task>_coefficients (1, K, P) of instances go
with them. The classes' names are in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ppmtl.bundle import graphs, onnx_graphs
from ppmtl.bundle.engines.backend import EngineOptions
from ppmtl.bundle.engines.onnx_runtime import open_graph
from ppmtl.bundle.final_boxes import rename
from ppmtl.bundle.settings import IMAGES, SINGLE_FILE, HeadGraph
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.ops.box_matching import unmatched
from ppmtl.ops.boxes import Detections
from ppmtl.predict.pipeline import Backend
from ppmtl.structures import ClassList, Size
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.views import View

_ROUNDING = 1e-5  # of scores, and of coordinates as a share of the input's longer side


def require_one_graph(plan: graphs.Plan) -> None:
    """Raises ValueError if a head answers in steps, which is no one graph."""
    steps = [name for name, head in plan.heads.items() if head.steps is not None]
    if steps:
        raise ValueError(
            f"--single_file: {', '.join(steps)} answers word by word, in a loop that no single graph holds; leave it out "
            "with --tasks, or export without --single_file"
        )


def write_single_file(
    folder: Path,
    model: MultiTaskModel,
    plan: graphs.Plan,
    tasks: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, ClassList],
    *,
    one_image: bool,
) -> None:
    """Writes ``folder``/model.onnx with raw arrays as outputs.

    Args:
        folder, model, plan: where, the ``inference_copy`` and its plan, whose batch is not looked at.
        tasks, classes: of the bundle, for the file's metadata.
        one_image: fix the batch to 1, which ``bundle/final_boxes.py`` needs.

    Raises:
        ValueError: if the converter fails.
    """
    between = folder / "single"
    graphs.save_whole(model, replace(plan, batch=1 if one_image else None), between / Path(SINGLE_FILE).stem)
    onnx_graphs.convert([Path(SINGLE_FILE).stem], between, folder)
    for path in between.iterdir():
        path.unlink()
    between.rmdir()
    found = onnx.load(folder / SINGLE_FILE)
    outputs = [f"{name}_{array}" for name, head in plan.heads.items() for array in head.outputs]
    rename(found, {value.name: new for value, new in zip(found.graph.output, outputs, strict=True)})
    _prune(found)
    about = {name: {"type": node["type"], "classes": classes[name].names} for name, node in tasks.items()}
    onnx.helper.set_model_props(found, {"tasks": json.dumps(about, ensure_ascii=False)})
    onnx.save(found, folder / SINGLE_FILE)


def backend(file: Path, heads: Mapping[str, HeadGraph]) -> Backend:
    """A model.onnx with raw outputs in ONNX Runtime, image by image; ``heads`` are the plan's."""
    graph = open_graph((file,), EngineOptions())

    def run(images: np.ndarray, tasks: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
        rows = [graph({IMAGES: image[None]}) for image in images]
        arrays = iter([np.concatenate(parts) for parts in zip(*rows, strict=True)])
        raw = {name: {array: next(arrays) for array in head.outputs} for name, head in heads.items()}
        return {name: raw[name] for name in tasks}

    return run


class FinalBoxes:
    """A backend with the answers of ``raw`` that counts where those of a model.onnx with final boxes are others.

    Both hold the same network. The numbers of ``raw`` are decoded as the pipeline does it.

    Attributes:
        boxes: seen so far, of ``raw``.
        different: those without a match in the other's, and the other way round, whatever their order.
    """

    def __init__(self, file: Path, raw: Backend, task: Detection) -> None:
        self._graph, self._raw, self._task = open_graph((file,), EngineOptions()), raw, task
        self._outputs = [value.name for value in onnx.load(file).graph.output]
        self.boxes = self.different = 0

    def __call__(self, images: np.ndarray, tasks: tuple[str, ...]) -> Mapping[str, Mapping[str, np.ndarray]]:
        raw, name = self._raw(images, tasks), self._task.name
        size: Size = (images.shape[1], images.shape[2])
        for row, image in enumerate(images):
            wanted = self._task.decode(raw[name], row, View(size).meta(size, ""), single=True)
            found = dict(zip(self._outputs, self._graph({IMAGES: image[None]}), strict=True))
            got = Detections(*(found[f"{name}_{what}"] for what in ("boxes", "scores", "classes")))
            pairs = unmatched(wanted, got, score=_ROUNDING, pixels=_ROUNDING * max(size))
            self.boxes += len(wanted)
            self.different += sum(int(rows.sum()) for rows in pairs)
        return raw


def _prune(model: onnx.ModelProto) -> None:
    """Removes what no output needs; ONNX Runtime would warn of every piece."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):  # sorted: who reads comes later
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
