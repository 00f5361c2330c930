"""The bundle's folder: graphs and infer_cfg.yml."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import paddle

import ppmtl
from ppmtl.bundle import graphs, onnx_graphs
from ppmtl.bundle.settings import (
    SUFFIXES,
    TRUNK,
    BundleSettings,
    GraphFormat,
    Pointwise,
    SourceRecord,
    file_records,
    write_settings,
)
from ppmtl.config.settings import InferSettings
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.structures import ClassList, Size

SingleFile = Literal["raw", "final"]


@dataclass(frozen=True)
class Content:
    """What a bundle holds besides the network.

    ``tasks`` are nodes of the training config, ``classes`` those that the weights answer in, ``git`` is the code's revision.
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
    pointwise: Pointwise = "linear",
    single_file: SingleFile | None = None,
) -> BundleSettings:
    """Writes a bundle into ``folder``, which is emptied first, and returns its settings; the model stays as it is.

    Args:
        folder, model, content, graph_format: what is written and where.
        size: fixed (height, width) of the input; every task's views are then of that size. None = any.
        batch: fixed number of images per run; None = any.
        pointwise: see :func:`graphs.inference_copy`.
        single_file: write model.onnx too, with raw arrays; "final" = of one image per run, see ``bundle/single_file.py``.
    """
    versions = {"ppmtl": ppmtl.__version__, "paddlepaddle": paddle.__version__, "python": sys.version.split()[0]}
    versions["git"] = content.git
    if graph_format == "onnx":
        onnx_graphs.require_converter()
        versions["paddle2onnx"] = version("paddle2onnx")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = graphs.make_plan(model, list(content.tasks), size, batch)
    if single_file is not None:
        from ppmtl.bundle import single_file as of_single  # needs onnx

        of_single.require_one_graph(plan)
    stems = [TRUNK, *(stem for head in plan.heads.values() for stem in head.files)]
    copied = graphs.inference_copy(model, pointwise)
    if graph_format == "onnx":
        between = folder / "paddle"
        graphs.save_graphs(copied, plan, between, old_format=False)
        onnx_graphs.convert(stems, between, folder)
        shutil.rmtree(between)
        if single_file is not None:
            one_image = single_file == "final"
            of_single.write_single_file(folder, copied, plan, content.tasks, content.classes, one_image=one_image)
    else:
        graphs.save_graphs(copied, plan, folder, old_format=graph_format == "paddle")
    files = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES[graph_format]]
    strides = [spec.stride for spec in model.backbone.out_specs.values()]
    document = {
        "format": 1,
        "name": content.name,
        "graph_format": graph_format,
        "pointwise": pointwise,
        "input": {"size": size, "batch": batch, "min_side": max(strides)},
        # Keys at their defaults are left out: versions that do not know them read the bundle too
        "trunk": {"file": TRUNK, "outputs": list(plan.shapes)}
        | ({} if plan.images == "uint8" else {"images": plan.images}),
        "heads": {
            task: {key: value for key, value in asdict(head).items() if value is not None}
            for task, head in plan.heads.items()
        },
        "tasks": {task: _at_size(node, size) for task, node in content.tasks.items()},
        "classes": {task: asdict(classes) for task, classes in content.classes.items()},
        "infer": asdict(content.infer if size is None else replace(content.infer, size=size)),
        "versions": versions,
        "source": asdict(content.source),
        "files": file_records(files),
    }
    return write_settings(folder, json.loads(json.dumps(document)))  # tuples become lists


def _at_size(node: Mapping[str, Any], size: Size | None) -> dict[str, Any]:
    """A task's settings without classes; its views brought to the one size that a fixed graph takes; mirroring stays."""
    kept = {key: value for key, value in node.items() if key != "classes"}
    if size is None:
        return kept
    kept.pop("long_side", None)
    views = {"sizes": [list(size)], **{k: v for k, v in (node.get("tta") or {}).items() if k == "flip"}}
    return kept | {"input_size": list(size), "tta": views}
