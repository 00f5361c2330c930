"""Image files -> drawn images, JSON and masks in a folder: what all tools that predict images share."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ppmtl.data.images import read_image
from ppmtl.predict.drawing import draw
from ppmtl.predict.pipeline import Pipeline


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
        for start in range(0, len(paths), pipeline.batch_size):
            chunk = paths[start : start + pipeline.batch_size]
            read = _readable(chunk)
            started = time.perf_counter()
            found = pipeline.predict([image for _, image in read], [str(path) for path, _ in read])
            seconds = (time.perf_counter() - started) / max(1, len(read))
            for (path, image), predictions in zip(read, found, strict=True):
                size = (image.shape[0], image.shape[1])
                content = {
                    "image": str(path),
                    "seconds": round(seconds, 4),
                    "backbone_runs": len(pipeline.views(size)),
                    "size": list(size),
                    **{name: pipeline.tasks[name].to_json(prediction) for name, prediction in predictions.items()},
                }
                if folder is None:
                    tqdm.write(json.dumps(content, ensure_ascii=False))  # above the bar, not into it
                    continue
                # a.jpg and a.png of one folder must not overwrite each other's results
                target = folder / (path.stem if stems[path.stem] == 1 else path.name)
                _write(target, image, predictions, content, pipeline, threshold)
                tqdm.write(f"{path} -> {target}.jpg ({seconds:.2f} s, backbone runs: {content['backbone_runs']})")
            done += len(read)
            bar.update(len(chunk))
    if folder is not None:
        print(f"{done} of {len(paths)} images written to {folder}")
    return len(paths) - done


def _readable(paths: Sequence[Path]) -> list[tuple[Path, np.ndarray]]:
    """(path, image) of those that can be read; the others are said."""
    read = []
    for path in paths:
        try:
            read.append((path, read_image(path)))
        except ValueError as error:  # one bad file must not cost the other images of the folder
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    return read


def _write(
    target: Path, image: np.ndarray, predictions: Any, content: dict[str, Any], pipeline: Pipeline, threshold: float
) -> None:
    """Writes <target>.jpg (drawn), <target>.json and <target>_<task>.png per mask, which the JSON names."""
    for name, prediction in predictions.items():
        mask = pipeline.tasks[name].mask(prediction)
        if mask is not None:
            content[name]["label_png"] = f"{target.name}_{name}.png"
            cv2.imencode(".png", mask)[1].tofile(f"{target}_{name}.png")
    drawn = draw(image, predictions, pipeline.tasks, threshold)
    cv2.imencode(".jpg", drawn[..., ::-1])[1].tofile(f"{target}.jpg")
    Path(f"{target}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
