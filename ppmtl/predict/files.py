"""Picture files -> drawn pictures, JSON and label maps in a folder. What all tools that predict pictures share."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ppmtl.data.images import read_image
from ppmtl.predict.pipeline import Pipeline
from ppmtl.predict.predictions import to_json, write
from ppmtl.structures import Prediction


def predict_files(
    paths: Sequence[Path],
    pipeline: Pipeline,
    folder: Path | None,
    *,
    threshold: float,
) -> int:
    """Returns how many pictures could not be read; the others are predicted and written, a line each to stdout.

    Args:
        paths: the pictures; ``pipeline.batch_size`` of them are in memory at a time.
        pipeline: predicts them.
        folder: gets <name>.jpg, <name>.json and label maps; None = nothing is written, the JSON goes to stdout.
        threshold: boxes below it are not drawn; the JSON has them all.

    Raises:
        ValueError: if ``folder`` holds the pictures themselves, which would be overwritten.
    """
    if folder is not None:
        if any(path.resolve().parent == folder.resolve() for path in paths):
            raise ValueError(
                f"--output_dir {folder} holds the pictures themselves, which would be overwritten; choose another"
            )
        folder.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in paths)
    done = 0
    with tqdm(total=len(paths), unit="img", disable=not sys.stderr.isatty()) as bar:
        for chunk, read in _batches(paths, pipeline.batch_size):
            for path, image, predictions, extra in _predicted(read, pipeline):
                # a.jpg and a.png of one folder must not overwrite each other's results
                name = path.stem if stems[path.stem] == 1 else path.name
                print(_save(folder and folder / name, image, predictions, pipeline, threshold, extra))
            done += len(read)
            bar.update(len(chunk))
    if folder is not None:
        print(f"{done} of {len(paths)} pictures written to {folder}")
    return len(paths) - done


def _batches(paths: Sequence[Path], batch_size: int) -> Iterator[tuple[Sequence[Path], list[tuple[Path, np.ndarray]]]]:
    """Yields paths that belong together, and (path, picture) of those that can be read."""
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        read = []
        for path in chunk:
            try:
                read.append((path, read_image(path)))
            except ValueError as error:  # one bad file must not cost the other pictures of the folder
                print(f"skipped: {error}", file=sys.stderr)
        yield chunk, read


def _predicted(
    read: Sequence[tuple[Path, np.ndarray]], pipeline: Pipeline
) -> Iterator[tuple[Path, np.ndarray, dict[str, Prediction], dict[str, Any]]]:
    started = time.perf_counter()
    found = pipeline.predict([image for _, image in read], [str(path) for path, _ in read])
    seconds = (time.perf_counter() - started) / max(1, len(read))
    for (path, image), predictions in zip(read, found, strict=True):
        runs = len(pipeline.views(image.shape[:2]))
        yield path, image, predictions, {"image": str(path), "seconds": round(seconds, 4), "backbone_runs": runs}


def _save(
    target: Path | None,
    image: np.ndarray,
    predictions: dict[str, Prediction],
    pipeline: Pipeline,
    threshold: float,
    extra: dict[str, Any],
) -> str:
    """Returns the line that tells of one picture, after writing its files if there is a target."""
    if target is None:
        found = {name: to_json(p, pipeline.tasks[name].classes) for name, p in predictions.items()}
        return json.dumps({**extra, "size": list(image.shape[:2]), **found}, ensure_ascii=False)
    drawn = write(target, image, predictions, pipeline.tasks, threshold, extra)
    return f"{extra['image']} -> {drawn} ({extra['seconds']:.2f} s, backbone runs: {extra['backbone_runs']})"
