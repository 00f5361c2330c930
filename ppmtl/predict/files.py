"""Image files -> drawn images, JSON and masks in a folder: what all tools that predict images share."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ppmtl.data.images import read_image
from ppmtl.predict.drawing import draw
from ppmtl.predict.pipeline import Pipeline
from ppmtl.tasks.base import Task


def predict_files(paths: Sequence[Path], pipeline: Pipeline, folder: Path | None, *, threshold: float) -> int:
    """Predicts images and writes the results, one line per image to stdout; returns how many could not be read.

    Args:
        paths: the images; ``pipeline.batch_size`` of them are in memory at a time.
        pipeline: predicts them.
        folder: gets <name>.jpg, <name>.json and masks; None = nothing is written, the JSON goes to stdout.
        threshold: boxes below it are not drawn; the JSON has them all.

    Raises:
        ValueError: if ``folder`` holds the images themselves, which would be overwritten.
    """
    if folder is not None:
        if any(path.resolve().parent == folder.resolve() for path in paths):
            raise ValueError(
                f"--output_dir {folder} holds the images themselves, which would be overwritten; choose another"
            )
        folder.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in paths)
    done = 0
    with tqdm(total=len(paths), unit="img", disable=not sys.stderr.isatty()) as bar:
        for chunk, read in _batches(paths, pipeline.batch_size):
            for path, image, predictions, extra in _predicted(read, pipeline):
                if folder is None:
                    print(json.dumps(document(predictions, pipeline.tasks, image, extra), ensure_ascii=False))
                    continue
                # a.jpg and a.png of one folder must not overwrite each other's results
                name = path.stem if stems[path.stem] == 1 else path.name
                drawn = write(folder / name, image, predictions, pipeline.tasks, threshold, extra)
                print(f"{path} -> {drawn} ({extra['seconds']:.2f} s, backbone runs: {extra['backbone_runs']})")
            done += len(read)
            bar.update(len(chunk))
    if folder is not None:
        print(f"{done} of {len(paths)} images written to {folder}")
    return len(paths) - done


def document(
    predictions: Mapping[str, Any], tasks: Mapping[str, Task[Any]], image: np.ndarray, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON of one image: ``extra``, its (height, width), and what every task found."""
    found = {name: tasks[name].to_json(prediction) for name, prediction in predictions.items()}
    return {**extra, "size": list(image.shape[:2]), **found}


def write(
    target: Path,
    image: np.ndarray,
    predictions: Mapping[str, Any],
    tasks: Mapping[str, Task[Any]],
    threshold: float,
    extra: Mapping[str, Any],
) -> Path:
    """Writes <target>.jpg (drawn), <target>.json and <target>_<task>.png per mask; returns the drawn image's path.

    Args:
        target: path without suffix.
        image: (H, W, 3) uint8 RGB, the original.
        predictions: {task: prediction}.
        tasks: {name: task}.
        threshold: boxes below it are not drawn; the JSON has them all.
        extra: what else the JSON records.
    """
    content = document(predictions, tasks, image, extra)
    for name, prediction in predictions.items():
        mask = tasks[name].mask(prediction)
        if mask is not None:
            content[name]["label_png"] = f"{target.name}_{name}.png"
            cv2.imencode(".png", mask)[1].tofile(f"{target}_{name}.png")
    drawn = Path(f"{target}.jpg")
    cv2.imencode(".jpg", draw(image, predictions, tasks, threshold)[..., ::-1])[1].tofile(drawn)
    Path(f"{target}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return drawn


def _batches(paths: Sequence[Path], batch_size: int) -> Iterator[tuple[Sequence[Path], list[tuple[Path, np.ndarray]]]]:
    """Yields paths that run together, and (path, image) of those that can be read."""
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        read = []
        for path in chunk:
            try:
                read.append((path, read_image(path)))
            except ValueError as error:  # one bad file must not cost the other images of the folder
                print(f"skipped: {error}", file=sys.stderr)
        yield chunk, read


def _predicted(
    read: Sequence[tuple[Path, np.ndarray]], pipeline: Pipeline
) -> Iterator[tuple[Path, np.ndarray, dict[str, Any], dict[str, Any]]]:
    started = time.perf_counter()
    found = pipeline.predict([image for _, image in read], [str(path) for path, _ in read])
    seconds = (time.perf_counter() - started) / max(1, len(read))
    for (path, image), predictions in zip(read, found, strict=True):
        runs = len(pipeline.views(image.shape[:2]))
        yield path, image, predictions, {"image": str(path), "seconds": round(seconds, 4), "backbone_runs": runs}
