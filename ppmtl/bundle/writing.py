"""The bundle's folder: graphs and infer_cfg.yml, written beside the place where they will appear."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import paddle

import ppmtl
from ppmtl.bundle import graphs, onnx_graphs
from ppmtl.bundle.settings import SUFFIXES, BundleSettings, GraphFormat, SourceRecord, write_settings
from ppmtl.config.settings import InferSettings
from ppmtl.files import sha256
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.structures import ClassList, Size

TRUNK = "trunk"


@dataclasses.dataclass(frozen=True)
class Content:
    """What a bundle holds besides the network.

    Attributes:
        name: of the bundle.
        tasks: {task: its node of the training config}.
        classes: {task: classes that the weights answer in}.
        infer: what tools/infer.py shows the network.
        source: what is exported.
        git: revision of the code.
    """

    name: str
    tasks: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, ClassList]
    infer: InferSettings
    source: SourceRecord
    git: str


def write_bundle(
    folder: Path,
    model: MultiTaskModel,
    content: Content,
    *,
    graph_format: GraphFormat = "paddle",
    size: Size | None = None,
    batch: int | None = None,
    pointwise: Literal["linear", "conv"] = "linear",
) -> BundleSettings:
    """Returns the settings of the bundle that it wrote to ``folder``, which is emptied first.

    Args:
        folder: not yet the place where users look.
        model: with its weights; stays as it is.
        content: everything else.
        graph_format: of the graphs.
        size: fixed (height, width) of the input; every task's views are then of that size. None = any.
        batch: fixed number of pictures per run; None = any.
        pointwise: see :func:`graphs.inference_copy`.

    Raises:
        ValueError: if the model refuses ``size``, or the ONNX converter fails.
    """
    if graph_format == "onnx":
        onnx_graphs.require_converter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = graphs.make_plan(model, list(content.tasks), size, batch)
    heads = {task: f"head_{task}" for task in plan.heads}
    _write_graphs(folder, graphs.inference_copy(model, pointwise), plan, heads, graph_format)
    infer = content.infer if size is None else dataclasses.replace(content.infer, size=size)
    document = {
        "format": 1,
        "name": content.name,
        "graph_format": graph_format,
        "pointwise": pointwise,
        "input": {
            "size": None if size is None else list(size),
            "batch": batch,
            "min_side": max(spec.stride for spec in model.backbone.out_specs.values()),
        },
        "trunk": {"file": TRUNK, "outputs": list(plan.shapes)},
        "heads": {
            task: {"file": stem, "inputs": plan.heads[task].inputs, "outputs": list(plan.heads[task].outputs)}
            for task, stem in heads.items()
        },
        "tasks": {task: _at_size(node, size) for task, node in content.tasks.items()},
        "classes": {task: {"names": list(c.names), "ids": list(c.ids)} for task, c in content.classes.items()},
        "infer": {"size": infer.size and list(infer.size), "draw_threshold": infer.draw_threshold},
        "versions": _versions(content.git, graph_format),
        "source": dataclasses.asdict(content.source),
        "files": [
            {"name": path.name, "sha256": sha256(path), "bytes": path.stat().st_size}
            for stem in (TRUNK, *heads.values())
            for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES[graph_format])
        ],
    }
    return write_settings(folder, document)


def _write_graphs(
    folder: Path, model: MultiTaskModel, plan: graphs.Plan, heads: Mapping[str, str], graph_format: GraphFormat
) -> None:
    if graph_format != "onnx":
        stems = {task: folder / stem for task, stem in heads.items()}
        graphs.save_graphs(model, plan, stems, folder / TRUNK, old_format=graph_format == "paddle")
        return
    between = folder / "paddle"
    stems = {task: between / stem for task, stem in heads.items()}
    graphs.save_graphs(model, plan, stems, between / TRUNK, old_format=False)
    sources = [between / TRUNK, *stems.values()]
    onnx_graphs.convert({source: folder / f"{source.name}.onnx" for source in sources})
    shutil.rmtree(between)


def _at_size(node: Mapping[str, Any], size: Size | None) -> dict[str, Any]:
    """Returns a task's settings, its views brought to the one size that a fixed graph takes; mirroring stays."""
    node = {key: value for key, value in node.items() if key != "classes"}
    if size is None:
        return node
    kept = {key: value for key, value in node.items() if key != "long_side"}
    views = {"sizes": [list(size)], **{k: v for k, v in (node.get("tta") or {}).items() if k == "flip"}}
    return kept | {"input_size": list(size), "tta": views}


def _versions(git: str, graph_format: GraphFormat) -> dict[str, str]:
    found = {
        "ppmtl": ppmtl.__version__,
        "paddlepaddle": paddle.__version__,
        "python": sys.version.split()[0],
        "git": git,
    }
    return found | ({"paddle2onnx": version("paddle2onnx")} if graph_format == "onnx" else {})
