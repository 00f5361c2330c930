"""A video -> the same video with the predictions drawn in, and a line of JSON per frame.

Needs nothing but opencv-python-headless, which brings FFmpeg. Of the codecs that it can write, MPEG-4 ("mp4v") in an .mp4
file plays in every player, though not inside web browsers; H.264 and AV1 are not among them. Its sides are even numbers: an
odd side grows by one repeated row or column, where OpenCV would cut one off. Sound is not copied.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ppmtl.predict.drawing import draw
from ppmtl.predict.pipeline import Pipeline

_CODEC = "mp4v"
_FALLBACK_FPS = 25.0  # for files that do not say, or say nonsense
_TOLERATED_SHARE = 0.01  # containers without an index only estimate their number of frames


@dataclass(frozen=True)
class VideoResult:
    """The annotated video, its frames, those that the input's header promised (0 = it does not say), and the time taken."""

    written: Path
    frames: int
    announced: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether the input had about as many frames as its header promises."""
        return self.frames >= self.announced - max(2, _TOLERATED_SHARE * self.announced)


def annotate(source: Path, folder: Path, pipeline: Pipeline, *, threshold: float) -> VideoResult:
    """Writes <folder>/<stem>.mp4 of the input's size and frame rate, and <stem>.jsonl with a line per frame.

    An interrupted run, or an input that breaks off, leaves a video that plays up to there.

    Args:
        source: a video that FFmpeg reads.
        folder: must not be the one in which ``source`` lies if that is an .mp4 file.
        pipeline: predicts the frames, ``batch_size`` at a time.
        threshold: boxes below it are not drawn; the JSON has them all.

    Raises:
        ValueError: if the video cannot be read or the result cannot be written.
    """
    target = folder / f"{source.stem}.mp4"
    if target.resolve() == source.resolve():
        raise ValueError(f"--output_dir {folder} holds the video itself, which would be overwritten; choose another")
    reader = _open(source)
    announced = max(0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT)))
    fps = reader.get(cv2.CAP_PROP_FPS)
    fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _FALLBACK_FPS
    folder.mkdir(parents=True, exist_ok=True)
    started, frames, writer = time.perf_counter(), 0, None
    bar = tqdm(total=announced or None, unit="frame", desc=source.name, disable=not sys.stderr.isatty())
    try:
        with bar, target.with_suffix(".jsonl").open("w", encoding="utf-8") as lines:
            for batch in _batches(reader, pipeline.batch_size):
                # The first frame decides: the header gives the size before the turn that phones ask for.
                writer = writer or _writer(target, fps, _even(batch[0]))
                names = [f"frame {frames + i}" for i in range(len(batch))]
                for image, found in zip(batch, pipeline.predict(batch, names), strict=True):
                    answers = {name: pipeline.tasks[name].to_json(prediction) for name, prediction in found.items()}
                    document = {"frame": frames, "second": round(frames / fps, 4), **answers}
                    writer.write(_even(draw(image, found, pipeline.tasks, threshold)[..., ::-1]))
                    lines.write(json.dumps(document, ensure_ascii=False) + "\n")
                    frames += 1
                    bar.update()
    finally:
        reader.release()
        if writer is not None:
            writer.release()  # writes the index, without which no player opens the file
    if not frames:
        raise ValueError(f"{source}: not one frame can be decoded; the video is damaged or cut off")
    return VideoResult(target, frames, announced, time.perf_counter() - started)


def _open(source: Path) -> cv2.VideoCapture:
    if not source.is_file():
        raise ValueError(f"{source}: no such video file")
    reader = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG)
    if not reader.isOpened():
        raise ValueError(
            f"{source}: cannot be opened as a video; it is cut off (an .mp4 needs its end), damaged or of a kind that "
            "OpenCV's FFmpeg does not read: convert it, e.g. ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    return reader


def _writer(target: Path, fps: float, first: np.ndarray) -> cv2.VideoWriter:
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*_CODEC), fps, (width, height))
    if not writer.isOpened():
        raise ValueError(f"{target}: this OpenCV cannot write {_CODEC} video; install opencv-python-headless")
    return writer


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if height % 2 == width % 2 == 0:
        return np.ascontiguousarray(frame)
    grown: np.ndarray = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return grown


def _batches(reader: cv2.VideoCapture, size: int) -> Iterator[list[np.ndarray]]:
    """Yields lists of up to ``size`` frames, (H, W, 3) uint8 RGB."""
    read = (frame for _, frame in iter(reader.read, (False, None)))  # what read() answers at the end
    while batch := [np.ascontiguousarray(frame[..., ::-1]) for frame in islice(read, size)]:
        yield batch
