"""Thresholds, suppression and order inside a graph: what ``Detection.decode`` makes of the same raw arrays."""

from __future__ import annotations

import numpy as np
import pytest
from small_bundle import write_raw_boxes

from ppmtl.structures import ClassList
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.views import View

onnx = pytest.importorskip("onnx", reason="requirements-deploy.txt is not installed")
ort = pytest.importorskip("onnxruntime", reason="requirements-deploy.txt is not installed")
from ppmtl.bundle.final_boxes import add_final_boxes  # noqa: E402

SIZE = (60, 90)
IMAGE = np.zeros((1, *SIZE, 3), np.uint8)


def raw_arrays(seed: int, boxes: int = 80, classes: int = 3) -> dict[str, np.ndarray]:
    """Boxes that overlap, of which some hang over the image and some lie outside."""
    random = np.random.default_rng(seed)
    corner = random.uniform(-20, 100, (boxes, 2))
    found = np.concatenate([corner, corner + random.uniform(0, 40, (boxes, 2))], axis=1)
    return {"boxes": found[None].astype(np.float32), "scores": random.random((1, boxes, classes), np.float32)}


def final(path, task, raw) -> list[np.ndarray]:
    write_raw_boxes(path, raw)
    add_final_boxes(path, {"det": task})
    session = ort.InferenceSession(str(path))
    assert [value.name for value in session.get_outputs()] == ["det_boxes", "det_scores", "det_classes"]
    return session.run(None, {"images": IMAGE})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        {"nms_iou": 0.5, "score_threshold": 0.3},
        {"nms_iou": 0.2, "max_detections": 7},
        {"nms_iou": None, "score_threshold": 0.6},
        {"nms_iou": None, "max_detections": 11},
        {"nms_iou": 1.0, "score_threshold": 0.0},
        {"nms_iou": 0.5, "score_threshold": 1.0},  # nothing is left
    ],
)
def test_the_boxes_are_those_of_the_pipeline(tmp_path, settings, seed):
    task, raw = Detection("det", ClassList(tuple("abc")), **settings), raw_arrays(seed)
    wanted = task.decode(raw, 0, View(SIZE).meta(SIZE, "x"), single=True)
    boxes, scores, classes = final(tmp_path / "m.onnx", task, raw)
    assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int64)
    assert len(wanted) == {1.0: 0}.get(task.score_threshold, len(wanted))
    np.testing.assert_array_equal(classes, wanted.labels)
    np.testing.assert_array_equal(scores, wanted.scores)
    np.testing.assert_allclose(boxes, wanted.boxes, atol=1e-5)


def test_suppression_and_the_edge_of_the_image_matter_here(tmp_path):
    """Or the test above would say little."""
    raw, task = raw_arrays(0), Detection("det", ClassList(tuple("abc")), nms_iou=0.2, max_detections=999)
    boxes, scores, _ = final(tmp_path / "m.onnx", task, raw)
    assert 10 < len(scores) < (raw["scores"] > task.score_threshold).sum() / 2
    assert boxes.min() == 0
    assert boxes[:, 2].max() == SIZE[1]
    assert (np.diff(scores) <= 0).all()


def test_coefficients_of_masks_go_with_their_boxes(tmp_path):
    raw = raw_arrays(1) | {"coefficients": np.arange(160, dtype=np.float32).reshape(1, 80, 2)}
    write_raw_boxes(tmp_path / "m.onnx", raw)
    task = Detection("det", ClassList(tuple("abc")), max_detections=5)
    add_final_boxes(tmp_path / "m.onnx", {"det": task})
    session = ort.InferenceSession(str(tmp_path / "m.onnx"))
    boxes, _, coefficients, _ = session.run(None, {"images": IMAGE})
    assert coefficients.shape == (1, 5, 2)
    for box, (number, _) in zip(boxes, coefficients[0], strict=True):
        whole = raw["boxes"][0, int(number) // 2]
        np.testing.assert_allclose(box, np.clip(whole, 0, [SIZE[1], SIZE[0]] * 2), atol=1e-5)
