"""A tiny model with random weights, as a config and a checkpoint that the tools take."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "_base_": str(ROOT / "configs" / "allinone_demo.yml"),
    "tasks": {
        "seg": {"classes": {"count": 5, "names": None}, "input_size": [64, 96]},
        "cls": {"classes": {"count": 4, "names": None}, "input_size": [32, 32]},
        "det": {"classes": {"count": 3, "names": None}, "input_size": [96, 96]},
    },
    "model": {
        "backbone": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
        "heads": {
            "seg": {"channels": 8, "aux_channels": 8},
            "cls": {"channels": 32},
            "det": {"neck": {"channels": [8, 16, 16]}},
        },
    },
    "infer": {"size": [64, 96]},
}
# Factors on last layers, so that answers differ as after a training. Fresh weights score everything nearly equally: the last
# digit would decide what is suppressed, and one class would cover every image.
SPREAD = {
    **{f"heads.det.outputs.{level}.weight": 300 for level in range(3)},
    "heads.seg.classifier.weight": 30,
    "heads.cls.fc.weight": 30,
}


def tool(name: str, *arguments: object, cwd: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def write_model(folder: Path) -> None:
    """Writes ``folder``/tiny.yml and ``folder``/random, its weights."""
    import paddle

    from ppmtl import build

    (folder / "tiny.yml").write_text(yaml.safe_dump(CONFIG))
    run = build.load(str(folder / "tiny.yml"))
    paddle.seed(0)
    tasks = build.build_tasks(run.settings)
    model = build.build_model(run.settings, tasks)
    write_weights(folder / "random", run, tasks, model, SPREAD)


def write_weights(folder: Path, run: Any, tasks: Any, model: Any, spread: Mapping[str, float]) -> None:
    """Writes the model as a checkpoint of step 7 whose parameters in ``spread`` are multiplied by these factors."""
    from ppmtl import build

    parameters = dict(model.named_parameters())
    for name, factor in spread.items():
        parameters[name].set_value(parameters[name] * factor)
    folder.mkdir()
    save_file({name: value.numpy() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps(build.describe(run, tasks) | {"progress": {"step": 7}}))


def write_bundle_of(config: Path, weights: Path, folder: Path, **options: Any) -> None:
    """Exports a checkpoint into ``folder`` without comparing it; ``options`` are those of ``write_bundle``."""
    from ppmtl import build
    from ppmtl.bundle.settings import SourceRecord
    from ppmtl.bundle.writing import Content, write_bundle

    run = build.load(str(config), [f"weights={weights}"])
    tasks, model = build.load_model(run.settings)
    classes = {name: task.classes for name, task in tasks.items()}
    source = SourceRecord(config.name, weights.name, "0" * 64)
    content = Content(config.stem, run.tree.data["tasks"], classes, run.settings.infer, source, "unknown")
    write_bundle(folder, model, content, **options)
