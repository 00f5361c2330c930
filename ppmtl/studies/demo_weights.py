"""Makes the demo model's own weights, which come with the project: float16, measured, with a record of how they were made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ppmtl import build
from ppmtl.files import remove_folder, replace_folder
from ppmtl.predict.evaluate import Evaluation, evaluate
from ppmtl.predict.report import without_nan
from ppmtl.train import checkpoint
from ppmtl.train.checkpoint_folder import problems, update, write
from ppmtl.weights.location import find_weights

MOST_BYTES = 6_000_000  # of the folder: every clone of the project carries it
MOST_DROP = 0.005  # of a task's primary metric by the rounding; measured on the demo: below 0.001
# Which rendered images come along, below data_root: of the test split, which no training and no evaluation saw
IMAGES = {"street": "track1_test_data/seg/images/test", "signs": "track1_test_data/dec/test",
          "vehicle": "track1_test_data/cls/test"}  # fmt: skip
IMAGES_OF_EACH = 2


def make(source: Path, target: Path, data_root: Path, *, limit: int | None = None) -> dict[str, Any]:
    """Writes ``target``, a checkpoint folder with the averaged weights of ``source`` in float16 and a few demo images.

    Args:
        source: what ``find_weights`` takes: a run of configs/allinone_demo.yml, for example.
        target: the folder; replaced when all is well, else left as it was.
        data_root: the demo data.
        limit: measure on the first so many images of each set, which the record then says; None = on all.

    Returns:
        What state.json says about it: "seed", "commit", "how", "metrics".

    Raises:
        ValueError: if the checkpoint is damaged, a number is beyond float16, the folder grows too large, or the rounded
            weights measure worse on all images than the original ones did.
    """
    source = find_weights(source)
    if wrong := problems(source):
        raise ValueError(f"{source} is not intact: {'; '.join(wrong)}; use another checkpoint")
    state = checkpoint.read_state(source)
    versions = {name: text for name, text in state["environment"].items() if name not in ("platform", "command", "git")}
    config = {**state["config"], "data_root": "demo_data", "save_dir": "output/demo", "device": "auto", "weights": None}
    record = {"seed": config["seed"], "commit": state["environment"]["git"], "how": "make demo, then make demo-weights"}
    staging = target.with_name(f".{target.name}.new")
    remove_folder(staging)
    try:
        document = {
            "config": config,
            "classes": state["classes"],
            "progress": state["progress"],
            "environment": versions,
        }
        write(staging, {"model": _halves(checkpoint.read_tensors(source))}, {**document, **record})
        _copy_images(data_root, staging / "images")
        result = _measured(staging, data_root, limit)
        record["metrics"] = _metrics(result, state["progress"], limit)
        update(staging, record)
        size = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
        if size > MOST_BYTES:
            raise ValueError(f"{target} would have {size} bytes, at most {MOST_BYTES} are meant; train a smaller model")
        replace_folder(staging, target)
    finally:
        remove_folder(staging)
    return record


def _halves(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    halves = {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in arrays.items()}
    wrong = [name for name, half in halves.items() if half.dtype == np.float16 and not np.isfinite(half).all()]
    if wrong:
        raise ValueError(f"numbers beyond float16 (65504) in {', '.join(wrong[:5])}; these weights cannot be halved")
    return halves


def _copy_images(data_root: Path, target: Path) -> None:
    target.mkdir()
    for name, folder in IMAGES.items():
        for number, image in enumerate(sorted((data_root / folder).glob("*.jpg"))[:IMAGES_OF_EACH], 1):
            shutil.copyfile(image, target / f"{name}_{number}.jpg")


def _measured(weights: Path, data_root: Path, limit: int | None) -> Evaluation:
    overrides = [f"weights={weights}", f"data_root={data_root}"]
    settings = build.load_stored(str(weights), overrides).settings
    build.require_data(settings, training=False, evaluation=True)
    tasks, backend = build.open_trained(settings, {})
    sets = build.build_eval_sets(settings, tasks)
    return evaluate(tasks, sets, backend, batch_size=settings.eval.batch_size, limit=limit)


def _metrics(result: Evaluation, progress: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The primary metrics of the rounded weights beside those that the training measured with float32."""
    nothing: dict[str, float] = {}
    before = next((entry for entry in progress["history"] if entry["step"] == progress["best_step"]), nothing)
    names = {f"{task}.{of.primary}": float(of.values[of.primary]) for task, of in result.metrics.items()}
    worse = [name for name, value in names.items() if not value >= before.get(name, value) - MOST_DROP]
    if worse and limit is None:
        pairs = ", ".join(f"{name} {names[name]:.4f} instead of {before[name]:.4f}" for name in worse)
        raise ValueError(f"rounded to float16 these weights are worse: {pairs}; use others")
    measured = {**names, "score": result.score}
    return dict(without_nan({
        "images": "all of the demo's validation sets" if limit is None else f"only the first {limit} of each validation set",
        "float16": measured,
        "float32_on_all_images": {name: before[name] for name in measured if name in before},
    }))  # fmt: skip
