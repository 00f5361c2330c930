"""A starting config for a folder of data: sizes, classes and anchors from what is there, the rest for training from scratch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppmtl import build
from ppmtl.config.explain import annotated
from ppmtl.files import atomic_write
from ppmtl.structures import Size
from ppmtl.studies.anchors import fit_anchors, recall
from ppmtl.studies.found_data import Found, find

Values = dict[str, Any]

_NAMES = {"label_png": "seg", "coco": "det", "coco_instances": "inst", "coco_captions": "cap"}  # others: "cls"
_STRIDE = 32  # of the backbone's coarsest feature
_LONG_SIDES = (640, 960, 1280, 1600, 2048)  # px; a detector's input is the smallest that shows objects large enough
_LARGE_ENOUGH = 16  # px, twice the finest stride
_MOST_FOR_SEG, _CROP, _CLS_SIDE, _CAP_SIDE = 1536, 512, 224, 320  # px
_MANY = 5000  # images; with fewer, a larger backbone from scratch only learns them by heart
_SCRATCH = "from scratch. With pretrained weights"


@dataclass
class Plan:
    """What one data set adds to a config, below its own name in each section; ``remarks`` {path in there: why}."""

    task: Values
    head: Values
    batch_size: int
    transforms: list[Values]
    sampler: str = "shuffle"
    remarks: dict[str, str] = field(default_factory=dict)


def write_config(data: Path, out: Path) -> str:
    """Writes a config (and, for images in one folder per class, lists of them) that trains on a folder of data.

    Args:
        data: the folder; ``find`` says what is recognised. Nothing is written into it.
        out: the config to write; lists go into a folder beside it.

    Returns:
        What was found and what to do next, for a person.

    Raises:
        ValueError: if ``out`` exists, nothing usable was found, or a file is unreadable.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; choose another name with --out, or remove it")
    config = _frame(data, out)
    remarks = {
        "data_root": "every relative data path starts here",
        "model.backbone.arch": f"{_SCRATCH}: tiny, small, base, large",
        "model.backbone.pretrained": "a file or URL; better than any number of epochs (docs/training_options.md)",
        "model.backbone.layer_scale_init": f"{_SCRATCH}: 1.0e-6",
        "optimizer.learning_rate": f"{_SCRATCH}: 1.0e-4",
        "train.steps_per_epoch": "one pass over the largest source",
    }
    report, steps, largest = list[str](), list[int](), 0
    for found in find(data):
        short = _NAMES.get(found.kind, "cls")
        name = next(n for n in (short, *(f"{short}{i}" for i in range(2, 1000))) if n not in config["tasks"])
        datasets = _datasets(found, name, data, out)
        size = _median_size(found.images["train"])
        plan = {"seg": _seg, "cls": _cls, "det": _det, "inst": _inst, "cap": _cap}[short](found, size)
        _add(config, remarks, name, plan, datasets)
        steps.append(-(-len(found.images["train"]) // plan.batch_size))
        largest = max(largest, len(found.images["train"]))
        report += [_line(name, found, size), *(f"  note: {note}" for note in found.notes)]
    if not config["eval"]["datasets"]:
        report.append("no validation images found: name some in eval.datasets, or no best_model is kept")
    config["train"]["steps_per_epoch"] = max(steps)
    config["model"]["backbone"]["arch"] = "tiny" if largest >= _MANY else "atto"
    head = "".join(f"# {line}\n" for line in ["Written by tools/config.py new, which found:", *report])
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write_text(f"{head}\n{annotated(config, lambda path: remarks.get(path, ''))}", encoding="utf-8")
    build.load(str(out))  # a mistake in it is ours, and better seen here
    return "\n".join([*report, f"wrote {out}", f"next: python tools/train.py -c {out} --fast_dev_run"])


def _frame(data: Path, out: Path) -> Values:
    """What does not depend on the data."""
    return {
        "data_root": str(data),
        "save_dir": f"output/{out.stem}",
        "tasks": {},
        "model": {
            "backbone": {"type": "convnext", "arch": "tiny", "pretrained": None, "drop_path_rate": 0.1, "layer_scale_init": 1.0,
                         "init": "fan_in"},
            "heads": {},
        },
        "sources": {},
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.05, "warmup_steps": 200, "clip_norm": 5.0},
        "train": {"epochs": 50, "steps_per_epoch": 0, "ema_decay": 0.999},
        "eval": {"batch_size": 1, "datasets": {}},
    }  # fmt: skip


def _add(config: Values, remarks: dict[str, str], name: str, plan: Plan, datasets: dict[str, Values]) -> None:
    config["tasks"][name], config["model"]["heads"][name] = plan.task, plan.head
    config["sources"][name] = {
        "dataset": datasets["train"],
        "batch_size": plan.batch_size,
        "sampler": plan.sampler,
        "transforms": plan.transforms,
    }
    if "val" in datasets:
        config["eval"]["datasets"][name] = datasets["val"]
    sections = {"task": "tasks", "head": "model.heads", "source": "sources"}
    for path, why in plan.remarks.items():
        section, _, key = path.partition(".")
        remarks[f"{sections[section]}.{name}.{key}"] = why


def _seg(found: Found, size: Size) -> Plan:
    crop = [min(_CROP, _multiple(side, down=True)) for side in size]
    task: Values = {"type": "segmentation", "classes": found.classes}
    if max(size) > _MOST_FOR_SEG:
        task["long_side"] = _MOST_FOR_SEG
    task["tta"] = {"scales": [1.0, 1.25], "flip": True}
    transforms: list[Values] = [{"type": "random_scale", "min": 0.5, "max": 2.0}, {"type": "pad_crop", "size": crop}]
    transforms += [{"type": "horizontal_flip", "p": 0.5}, {"type": "color_jitter"}]
    remarks = {"source.transforms.1.size": "(height, width) in training; evaluation shows the whole image"}
    return Plan(task, {"type": "upernet", "channels": 128, "aux_channels": 128}, 4, transforms, remarks=remarks)


def _cls(found: Found, size: Size) -> Plan:
    side = min(_CLS_SIDE, _multiple(min(size)))
    task = {"type": "classification", "classes": found.classes, "input_size": [side, side], "tta": {"flip": True}}
    transforms: list[Values] = [{"type": "random_resized_crop", "size": [side, side], "area": [0.35, 1.0]},
                  {"type": "horizontal_flip", "p": 0.5}, {"type": "random_erasing", "p": 0.25}]  # fmt: skip
    there = found.counts[found.counts > 0]
    uneven = len(there) > 0 and there.max() > 2 * there.min()
    remarks = {"source.sampler": f"classes have {there.min()} to {there.max()} images"} if uneven else {}
    sampler = "class_balanced" if uneven else "shuffle"
    return Plan(task, {"type": "cbam_fc", "channels": 256}, 16, transforms, sampler, remarks)


def _det(found: Found, size: Size) -> Plan:
    plan = _objects(found, size)
    plan.task["type"] = "detection"
    plan.head |= {
        "type": "yolov5",
        "neck": {"type": "yolocsppan", "depth_multiplier": 0.33, "channels": [128, 256, 512]},
    }
    sides = found.sides * np.array(plan.task["input_size"][::-1])
    try:
        anchors = np.maximum(fit_anchors(sides), 1.0).round(1)
    except ValueError as error:
        found.notes.append(f"the head's own anchors are kept: {error}")
    else:
        plan.head["anchors"] = anchors.reshape(3, 3, 2).tolist()
        fit = recall(sides, anchors)
        plan.remarks["head.anchors"] = f"(width, height) px; fit {fit:.1%} of the boxes at input_size"
    return plan


def _inst(found: Found, size: Size) -> Plan:
    plan = _objects(found, size)
    plan.task["type"], plan.head["type"] = "instances", "yolov7_af"
    plan.remarks["task.type"] = "boxes and masks; for boxes only: detection, a head of it and the reader coco"
    return plan


def _objects(found: Found, size: Size) -> Plan:
    """What the tasks with boxes have in common; their types are still to be named."""
    shown = detector_size(found.sides, size)
    sides = found.sides * np.array(shown[::-1])
    middle = float(np.median(np.sqrt(sides.prod(axis=1)))) if len(sides) else float("nan")
    if middle < _LARGE_ENOUGH / 2:
        found.notes.append(
            f"the middle object has {middle:.0f} px: crop_around_box before resize enlarges it (docs/data.md)"
        )
    task: Values = {"type": "", "classes": found.classes, "input_size": list(shown), "tta": {"flip": True}}
    transforms: list[Values] = [
        {"type": "resize", "size": list(shown)},
        {"type": "horizontal_flip", "p": 0.5},
        {"type": "color_jitter"},
    ]
    remarks = {"task.input_size": f"(height, width): the middle object has {middle:.0f} px there"}
    return Plan(task, {}, 4, transforms, remarks=remarks)


def _cap(found: Found, size: Size) -> Plan:
    shown = [min(_CAP_SIDE, _multiple(side)) for side in size]
    task = {"type": "captions", "classes": found.classes, "input_size": shown, "max_length": 40}
    head = {"type": "captions", "reads": "c5", "layers": 3, "max_length": 40}
    remarks = {"source.transforms": "no mirror, no mix and no colour: what a sentence says must stay true"}
    return Plan(task, head, 8, [{"type": "resize", "size": shown}], remarks=remarks)


def detector_size(sides: np.ndarray, size: Size) -> Size:
    """The (height, width) at which a detector sees images of ``size``: the smallest that shows the middle object large enough.

    Args:
        sides: (N, 2) width and height of boxes as share of their image's.
        size: of the images, (height, width) px. They are not enlarged, but for rounding up to a multiple of 32.
    """
    factors = [min(1.0, long_side / max(size)) for long_side in _LONG_SIDES]
    lengths = np.sqrt((sides * size[::-1]).prod(axis=1))
    middle = float(np.median(lengths)) if len(sides) else float("inf")
    factor = next((f for f in factors if f * middle >= _LARGE_ENOUGH), factors[-1])
    return _multiple(size[0] * factor), _multiple(size[1] * factor)


def _datasets(found: Found, name: str, data: Path, out: Path) -> dict[str, Values]:
    """{split: the reader with its keys}; images in one folder per class get a list file each."""
    if found.kind != "folders":
        return {split: {"type": found.kind, **keys} for split, keys in found.splits.items()}
    folder = out.parent / f"{out.stem}_lists"
    folder.mkdir(parents=True, exist_ok=True)
    datasets: dict[str, Values] = {}
    for split, keys in found.splits.items():
        numbers = {label: number for number, label in enumerate(found.classes["names"])}
        lines = [f"{file.parent.name}/{file.name} {numbers[file.parent.name]}\n" for file in found.images[split]]
        listed = folder / f"{name}_{split}.txt"
        listed.write_text("".join(lines), encoding="utf-8")
        way = os.path.relpath(listed.resolve(), data.resolve())
        datasets[split] = {"type": "image_list", "images": keys["images"], "list_file": way}
    return datasets


def _line(name: str, found: Found, size: Size) -> str:
    counts = ", ".join(f"{len(files)} {split}" for split, files in found.images.items())
    classes = found.counts
    empty = f", {int((classes == 0).sum())} without a sample" if (classes == 0).any() else ""
    boxes = f", {len(found.sides)} boxes" if found.kind in ("coco", "coco_instances") else ""
    said = f"{classes[0]} sentences" if found.kind == "coco_captions" else f"{len(classes)} classes{empty}"
    what = {"folders": "one folder of images per class"}.get(found.kind, found.kind)
    return f"{name}: {what}, {counts} images of about {size[0]} x {size[1]} px{boxes}, {said}"


def _median_size(files: Sequence[Path]) -> Size:
    """(height, width) of the middle of 64 images at most, by their headers."""
    sizes = []
    for file in files[:: max(1, len(files) // 64)]:
        try:
            with Image.open(file) as image:
                sizes.append(image.size[::-1])
        except OSError as error:
            raise ValueError(f"{file}: is no image ({error}); replace it or remove it from the data set") from error
    height, width = np.median(np.array(sizes), axis=0)
    return int(height), int(width)


def _multiple(side: float, *, down: bool = False) -> int:
    """The nearest multiple of the backbone's stride above a side, or below it; at least one stride."""
    return max(1, int(side // _STRIDE if down else -(-side // _STRIDE))) * _STRIDE
