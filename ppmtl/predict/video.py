"""A video or a camera -> a video with the predictions drawn in, and a line of JSON per frame.

Needs nothing but opencv-python-headless, which brings FFmpeg, but no encoder for H.264: that is used where the machine has
one (its hardware's, or an OpenCV built with one). MPEG-4 ("mp4v") plays in every player, though not inside web browsers. The
sides are even numbers: an odd side grows by one repeated row or column, where OpenCV would cut one off. Sound is not copied.
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

_CODECS = {"avc1": "H.264", "mp4v": "MPEG-4, which web browsers do not play; no H.264 encoder was found"}
_FALLBACK_FPS = 25.0  # for files that do not say, or say nonsense
_TOLERATED_SHARE = 0.01  # containers without an index only estimate their number of frames


@dataclass(frozen=True)
class VideoResult:
    """The annotated video, its codec and frames, those that the input's header promised (0 = it does not say), and the time."""

    written: Path
    codec: str
    frames: int
    announced: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether the input had about as many frames as its header promises."""
        return self.frames >= self.announced - max(2, _TOLERATED_SHARE * self.announced)


def predict_video(source: Path | int, folder: Path, pipeline: Pipeline, *, threshold: float, limit: int | None) -> int:
    """Annotates a video as :func:`annotate` does and says how it went; returns the exit code, 1 if the input breaks off."""
    result = annotate(source, folder, pipeline, threshold=threshold, limit=limit)
    name = _name(source)
    rate = result.frames / result.seconds
    print(f"{name} -> {result.written} ({result.codec}): {result.frames} frames, {rate:.1f} frames/s")
    if result.complete or result.frames == limit:
        return 0
    print(
        f"{name}: breaks off after {result.frames} of {result.announced} frames; it is cut off or damaged. What was written "
        "up to there can be played",
        file=sys.stderr,
    )
    return 1


def annotate(
    source: Path | int, folder: Path, pipeline: Pipeline, *, threshold: float, limit: int | None = None
) -> VideoResult:
    """Writes <folder>/<stem>.mp4 of the input's size and frame rate, and <stem>.jsonl with a line per frame.

    An interrupted run, or an input that breaks off, leaves a video that plays up to there.

    Args:
        source: a video that FFmpeg reads, or the number of a camera, which Ctrl-C ends; its video, camera_<number>.mp4, shows
            as many frames per second as the camera says to give, however many were worked on.
        folder: must not be the one in which ``source`` lies if that is an .mp4 file.
        pipeline: predicts the frames, ``batch_size`` at a time.
        threshold: boxes below it are neither drawn nor written.
        limit: only the first so many frames; None = all.

    Raises:
        ValueError: if the video cannot be read or the result cannot be written.
    """
    name = _name(source)
    target = folder / f"{Path(name).stem}.mp4"
    if isinstance(source, Path) and target.resolve() == source.resolve():
        raise ValueError(f"--output_dir {folder} holds the video itself, which would be overwritten; choose another")
    reader = _open(source)
    announced = max(0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT))) if isinstance(source, Path) else 0
    fps = reader.get(cv2.CAP_PROP_FPS)
    fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _FALLBACK_FPS
    folder.mkdir(parents=True, exist_ok=True)
    started, frames, writer, codec = time.perf_counter(), 0, None, ""
    bar = tqdm(total=announced or None, unit="frame", desc=name, disable=not sys.stderr.isatty())
    try:
        with bar, target.with_suffix(".jsonl").open("w", encoding="utf-8") as lines:
            for batch in _batches(reader, pipeline.batch_size, limit):
                if (
                    writer is None
                ):  # the first frame decides: the header gives the size before the turn that phones ask for
                    writer, codec = _writer(target, fps, _even(batch[0]))
                names = [f"frame {frames + i}" for i in range(len(batch))]
                for image, found in zip(batch, pipeline.predict(batch, names), strict=True):
                    answers = {
                        name: pipeline.tasks[name].to_json(prediction, threshold=threshold)
                        for name, prediction in found.items()
                    }
                    document = {"frame": frames, "second": round(frames / fps, 4), "threshold": threshold, **answers}
                    writer.write(_even(draw(image, found, pipeline.tasks, threshold)[..., ::-1]))
                    lines.write(json.dumps(document, ensure_ascii=False) + "\n")
                    frames += 1
                    bar.update()
    except KeyboardInterrupt:
        if isinstance(source, Path):
            raise
    finally:
        reader.release()
        if writer is not None:
            writer.release()  # writes the index, without which no player opens the file
    if not frames:
        raise ValueError(
            f"{name}: not one frame can be decoded; the video is damaged or cut off, or the camera is in use"
        )
    return VideoResult(target, codec, frames, announced, time.perf_counter() - started)


def _name(source: Path | int) -> str:
    return str(source) if isinstance(source, Path) else f"camera_{source}"


def _open(source: Path | int) -> cv2.VideoCapture:
    if isinstance(source, int):
        camera = cv2.VideoCapture(source)
        if not camera.isOpened():
            raise ValueError(
                f"--camera_id {source}: no such camera, or another program uses it; Linux shows cameras as /dev/video<N>"
            )
        return camera
    if not source.is_file():
        raise ValueError(f"{source}: no such video file")
    reader = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG)
    if not reader.isOpened():
        raise ValueError(
            f"{source}: cannot be opened as a video; it is cut off (an .mp4 needs its end), damaged or of a kind that "
            "OpenCV's FFmpeg does not read: convert it, e.g. ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    return reader


def _writer(target: Path, fps: float, first: np.ndarray) -> tuple[cv2.VideoWriter, str]:
    """An open writer and what its codec is called: the first of ``_CODECS`` that this machine can encode."""
    height, width = first.shape[:2]
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # an encoder that is not there is no error here
    try:
        for code, name in _CODECS.items():
            writer = cv2.VideoWriter(str(target), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), fps, (width, height))
            if writer.isOpened():
                return writer, name
    finally:
        cv2.utils.logging.setLogLevel(level)
    raise ValueError(f"{target}: this OpenCV can write neither H.264 nor MPEG-4 video; install opencv-python-headless")


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if height % 2 == width % 2 == 0:
        return np.ascontiguousarray(frame)
    grown: np.ndarray = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return grown


def _batches(reader: cv2.VideoCapture, size: int, limit: int | None) -> Iterator[list[np.ndarray]]:
    """Yields lists of up to ``size`` frames, (H, W, 3) uint8 RGB, at most ``limit`` together."""
    read = islice((frame for _, frame in iter(reader.read, (False, None))), limit)  # what read() answers at the end
    while batch := [np.ascontiguousarray(frame[..., ::-1]) for frame in islice(read, size)]:
        yield batch
