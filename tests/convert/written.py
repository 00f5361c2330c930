"""Runs the converter as a user does, and reads what it wrote through the lines of its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import convert_dataset
import numpy as np
import yaml
from PIL import Image

from ppmtl.config.parts import resolve_part
from ppmtl.data.classes import read_class_file
from ppmtl.data.reader import Reader


def picture(path: Path, size: tuple[int, int] = (20, 30), **options: Any) -> Path:
    """A black image of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, **options)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def convert(name: str, data: Path, *flags: object) -> Path:
    """The folder that was written."""
    assert convert_dataset.main([name, str(data), *map(str, flags)]) == 0
    return data.with_name(f"{data.name}_converted")


def reader(folder: Path, task: str, section: str = "sources") -> Reader:
    """The reader of a task as the written config names it."""
    config = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
    root = Path(config["data_root"])
    settings = config["sources"][task]["dataset"] if section == "sources" else config["eval"]["datasets"][task]
    classes = read_class_file(root / config["tasks"][task]["classes"]["names"])
    keys = {key: value for key, value in settings.items() if key != "type"}
    made = resolve_part("ppmtl.data.readers", settings["type"])(root, {task: classes}, **keys)
    assert isinstance(made, Reader)
    assert [finding for finding in made.scan() if finding.severity == "error"] == []
    return made


def labels(made: Reader) -> dict[str, Any]:
    """{image's name: its label}."""
    (task,) = made.tasks
    return {Path(made.path(i)).name: made[i].labels[task] for i in range(len(made))}
