"""Image files -> drawn images, JSON and masks in a folder: what all tools that predict images share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ppmtl.data.images import read_image
from ppmtl.data.label_maps import write_label_map
from ppmtl.predict.drawing import draw, with_legend
from ppmtl.predict.pipeline import Pipeline
from ppmtl.predict.result_files import ImageNames, ResultFiles, image_ids
from ppmtl.tasks.base import Task


def predict_files(paths: Sequence[Path], pipeline: Pipeline, folder: Path | None, *, threshold: float) -> int:
    """Predicts images and writes the results, one line per image to stdout; returns how many could not be predicted.

    One that cannot be read, or that the network cannot take, is named on stderr and costs the others nothing.

    Args:
        paths: the images; ``pipeline.batch_size`` of them are in memory at a time.
        pipeline: predicts them.
        folder: gets <name>.jpg, <name>.json and masks, in sub-folders as the images are, and "predictions" with the files of
            :class:`ResultFiles`; None = nothing is written, the JSON goes to stdout.
        threshold: boxes below it are neither drawn nor written; the JSON says it.

    Raises:
        ValueError: if ``folder`` holds the images themselves, which would be overwritten.
    """
    names = ImageNames([str(path) for path in paths])
    numbers = dict(zip(paths, enumerate(image_ids(paths)), strict=True))
    results = None
    if folder is not None:
        if any(Path(path).resolve().parent == (folder / stem).parent.resolve() for path, stem in names.stem.items()):
            raise ValueError(
                f"--output_dir {folder} holds the images themselves, which would be overwritten; choose another"
            )
        folder.mkdir(parents=True, exist_ok=True)
        results = ResultFiles(folder / "predictions", pipeline.tasks, threshold=threshold, least=threshold)
    done = 0
    with tqdm(total=len(paths), unit="img", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(paths), pipeline.batch_size):
            chunk = paths[start : start + pipeline.batch_size]
            read = _readable(chunk)
            started = time.perf_counter()
            predicted = _predicted(pipeline, read)
            seconds = (time.perf_counter() - started) / max(1, len(read))
            for path, image, predictions in predicted:
                size = (image.shape[0], image.shape[1])
                content = {
                    "image": str(path),
                    "seconds": round(seconds, 4),
                    "backbone_runs": len(pipeline.views(size)),
                    "size": list(size),
                    "threshold": threshold,
                    **{
                        name: pipeline.tasks[name].to_json(prediction, threshold=threshold)
                        for name, prediction in predictions.items()
                    },
                }
                if folder is None or results is None:
                    tqdm.write(json.dumps(content, ensure_ascii=False))  # above the bar, not into it
                    continue
                target = folder / names.stem[str(path)]
                target.parent.mkdir(parents=True, exist_ok=True)
                write_result(target, image, predictions, content, pipeline.tasks, threshold)
                results.add(*numbers[path], str(path), size, predictions, names)
                tqdm.write(f"{path} -> {target}.jpg ({seconds:.2f} s, backbone runs: {content['backbone_runs']})")
            done += len(predicted)
            bar.update(len(chunk))
    if results is not None:
        results.write({})
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


def _predicted(pipeline: Pipeline, read: Sequence[tuple[Path, np.ndarray]]) -> list[tuple[Path, np.ndarray, Any]]:
    """(path, image, predictions) of those that the network can take; the others, e.g. smaller than it needs, are said."""
    try:
        found = pipeline.predict([image for _, image in read], [str(path) for path, _ in read])
    except ValueError as error:
        if len(read) > 1:  # which one it was is found one by one
            return [row for one in read for row in _predicted(pipeline, [one])]
        tqdm.write(f"skipped: {read[0][0]}: {error}", file=sys.stderr)
        return []
    return [(path, image, predictions) for (path, image), predictions in zip(read, found, strict=True)]


def write_result(
    target: Path,
    image: np.ndarray,
    predictions: Mapping[str, Any],
    content: dict[str, Any],
    tasks: Mapping[str, Task[Any]],
    threshold: float,
) -> None:
    """Writes <target>.jpg (drawn), <target>.json and <target>_<task>.png per mask, which the JSON names.

    Args:
        target: path without suffix.
        image: (H, W, 3) uint8 RGB.
        predictions: {task: prediction} in the image's coordinates.
        content: of the JSON; gets the masks' names.
        tasks: {name: task}.
        threshold: parts that score below it are not drawn.
    """
    for name, prediction in predictions.items():
        mask = tasks[name].mask(prediction)
        if mask is not None:
            content[name]["label_png"] = f"{target.name}_{name}.png"
            write_label_map(f"{target}_{name}.png", mask, list(tasks[name].legend().values()))
    drawn = with_legend(draw(image, predictions, tasks, threshold), predictions, tasks)
    cv2.imencode(".jpg", drawn[..., ::-1])[1].tofile(f"{target}.jpg")
    Path(f"{target}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
