"""Annotated videos: size, rate and number of frames stay; what breaks off is said and can be played up to there."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppmtl.predict import video
from ppmtl.predict.pipeline import Pipeline
from ppmtl.predict.video import annotate, predict_video
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification

CLASSES = ClassList(("dark", "bright"))


def brightness(images, _tasks):
    share = images.reshape(len(images), -1).mean(axis=1) / 255
    return {"cls": {"probs": np.stack([1 - share, share], axis=1).astype(np.float32)}}


def pipeline(backend=brightness, batch_size: int = 4) -> Pipeline:
    return Pipeline({"cls": Classification("cls", CLASSES, input_size=(8, 8))}, backend, batch_size=batch_size)


def write_video(path: Path, codec: str, size: tuple[int, int], frames: int, fps: float = 12.5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    noise = np.random.default_rng(0).integers(0, 60, (*size, 3), np.uint8)  # so that every frame needs its bytes
    for index in range(frames):
        writer.write(np.roll(noise, index, axis=1) + np.uint8(index * 190 // frames))
    writer.release()
    return path


def read_video(path: Path) -> tuple[float, list[np.ndarray]]:
    reader, frames = cv2.VideoCapture(str(path)), []
    while (found := reader.read())[0]:
        frames.append(found[1])
    return reader.get(cv2.CAP_PROP_FPS), frames


def test_size_rate_and_number_of_frames_stay(tmp_path):
    source = write_video(tmp_path / "in.avi", "MJPG", (48, 64), 11)
    result = annotate(source, tmp_path / "out", pipeline(), threshold=0.5)
    fps, frames = read_video(result.written)
    assert result.written == tmp_path / "out" / "in.mp4"
    assert (result.frames, result.announced, result.complete) == (11, 11, True)
    assert fps == 12.5
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 11


def test_every_frame_gets_its_own_line_and_drawing_in_order(tmp_path):
    source = write_video(tmp_path / "in.avi", "MJPG", (96, 160), 11)
    result = annotate(source, tmp_path / "out", pipeline(), threshold=0.5)
    lines = [json.loads(line) for line in result.written.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(11))
    assert lines[10]["second"] == 0.8
    bright = [next(c["score"] for c in line["cls"]["top"] if c["class"] == "bright") for line in lines]
    assert bright == sorted(bright)
    before, after = read_video(source)[1], read_video(result.written)[1]
    for index in (0, 10):
        changed = np.abs(before[index].astype(int) - after[index]).max(axis=2) > 60
        assert changed[:16, :80].mean() > 0.1  # the class is written in the corner
        assert changed[40:].mean() < 0.05  # and nowhere else


def test_batches_do_not_change_what_is_found(tmp_path):
    source = write_video(tmp_path / "in.avi", "MJPG", (48, 64), 7)
    texts = []
    for size in (1, 3, 16):
        calls = []

        def backend(images, tasks, calls=calls):
            calls.append(len(images))
            return brightness(images, tasks)

        written = annotate(source, tmp_path / str(size), pipeline(backend, size), threshold=0.5).written
        texts.append(written.with_suffix(".jsonl").read_text())
        assert calls == {1: [1] * 7, 3: [3, 3, 1], 16: [7]}[size]
    assert texts[0] == texts[1] == texts[2]


def test_odd_sides_grow_by_a_repeated_edge_instead_of_losing_one(tmp_path):
    source = tmp_path / "in.png"  # a video of one frame to FFmpeg; OpenCV cannot write others of odd size
    cv2.imwrite(str(source), np.full((49, 65, 3), 90, np.uint8))
    assert read_video(annotate(source, tmp_path / "out", pipeline(), threshold=0.5).written)[1][0].shape == (50, 66, 3)


@pytest.mark.parametrize("name, codec", [("in.webm", "VP80"), ("in.avi", "MJPG")])
def test_a_video_that_breaks_off_is_said_to_and_plays_up_to_there(tmp_path, name, codec):
    source = write_video(tmp_path / name, codec, (48, 64), 40)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    result = annotate(source, tmp_path / "out", pipeline(), threshold=0.5)
    assert not result.complete
    assert 10 < result.frames < 35
    assert result.announced == 40
    assert len(read_video(result.written)[1]) == result.frames


def test_an_interrupted_run_leaves_a_video_that_plays(tmp_path):
    source = write_video(tmp_path / "in.avi", "MJPG", (48, 64), 12)
    calls = []

    def interrupted(images, tasks):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return brightness(images, tasks)

    with pytest.raises(KeyboardInterrupt):
        annotate(source, tmp_path / "out", pipeline(interrupted), threshold=0.5)
    assert len(read_video(tmp_path / "out" / "in.mp4")[1]) == 8


def test_what_is_no_video_is_refused_with_a_remedy(tmp_path):
    for name, content in (("text.mp4", b"hello"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: cannot be opened as a video.*ffmpeg -i IN"):
            annotate(tmp_path / name, tmp_path / "out", pipeline(), threshold=0.5)
    with pytest.raises(ValueError, match="no such video file"):
        annotate(tmp_path / "gone.mp4", tmp_path / "out", pipeline(), threshold=0.5)
    assert not (tmp_path / "out").exists()


def test_the_video_itself_is_never_overwritten(tmp_path):
    source = write_video(tmp_path / "in.mp4", "mp4v", (48, 64), 3)
    before = source.read_bytes()
    with pytest.raises(ValueError, match="holds the video itself"):
        annotate(source, tmp_path, pipeline(), threshold=0.5)
    assert source.read_bytes() == before


class Camera:
    """What OpenCV gives for a camera: grey frames without end; Ctrl-C comes before frame ``stops``."""

    def __init__(self, stops: int = 1000, opens: bool = True):
        self.stops, self.opens, self.taken = stops, opens, 0

    def isOpened(self):
        return self.opens

    def get(self, _):
        return -1.0

    def read(self):
        if self.taken == self.stops:
            raise KeyboardInterrupt
        self.taken += 1
        return True, np.full((48, 64, 3), 90, np.uint8)

    def release(self):
        self.opens = False


@pytest.mark.parametrize("stops, limit", [(6, None), (1000, 6)])
def test_a_camera_is_recorded_until_it_is_stopped_or_reaches_the_limit(tmp_path, monkeypatch, capsys, stops, limit):
    camera, real = Camera(stops), cv2.VideoCapture
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda *source: camera if source == (3,) else real(*source))
    assert predict_video(3, tmp_path, pipeline(batch_size=2), threshold=0.5, limit=limit) == 0
    assert "camera_3.mp4" in capsys.readouterr().out
    assert (
        len(read_video(tmp_path / "camera_3.mp4")[1])
        == len((tmp_path / "camera_3.jsonl").read_text().splitlines())
        == 6
    )
    assert not camera.opens


def test_a_camera_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda _: Camera(opens=False))
    with pytest.raises(ValueError, match="--camera_id 3: no such camera"):
        annotate(3, tmp_path / "out", pipeline(), threshold=0.5)
    assert not (tmp_path / "out").exists()


def test_a_limit_ends_a_video_and_is_no_break(tmp_path, capsys):
    source = write_video(tmp_path / "in.avi", "MJPG", (48, 64), 11)
    assert predict_video(source, tmp_path / "out", pipeline(), threshold=0.5, limit=5) == 0
    assert "5 frames" in capsys.readouterr().out
    assert len(read_video(tmp_path / "out" / "in.mp4")[1]) == 5


@pytest.mark.parametrize("available, told", [({"avc1", "mp4v"}, "H.264"), ({"mp4v"}, "MPEG-4"), (set(), None)])
def test_h264_is_written_where_it_can_be_else_mpeg4_and_it_is_said(tmp_path, monkeypatch, available, told):
    source = write_video(tmp_path / "in.avi", "MJPG", (48, 64), 3)
    real, names = cv2.VideoWriter, {cv2.VideoWriter.fourcc(*code): code for code in ("avc1", "mp4v")}

    class Writer:
        fourcc = real.fourcc

        def __new__(cls, target, api, codec, *rest):
            # Both write MPEG-4 here: this machine may have no H.264 encoder
            return real(target, api, real.fourcc(*"mp4v"), *rest) if names[codec] in available else real()

    monkeypatch.setattr(video.cv2, "VideoWriter", Writer)
    if told is None:
        with pytest.raises(ValueError, match=r"neither H\.264 nor MPEG-4"):
            annotate(source, tmp_path / "out", pipeline(), threshold=0.5)
    else:
        assert annotate(source, tmp_path / "out", pipeline(), threshold=0.5).codec.startswith(told)
