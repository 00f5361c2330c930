"""Average precision from arrays equals pycocotools, whatever is missing.

Tolerance 1e-15: pycocotools adds 2e-16 to a denominator (see the module), everything else is bit for bit.
"""

import contextlib
import io

import numpy as np
import pytest

from ppmtl.ops.average_precision import BoxTruth, average_precision_of_rows, coco_average_precision
from ppmtl.ops.boxes import Detections
from ppmtl.structures import ClassList

CLASSES = ClassList(("stop", "yield", "speed", "never seen"), (7, 3, 21, 4))


def _boxes(rng, count):
    corner = rng.uniform(0, 400, (count, 2))
    return np.hstack([corner, corner + rng.lognormal(4, 1, (count, 2)).clip(2, 400)]).astype(np.float32)


def _data(seed, images=25, found=40):
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(images):
        n, crowd = rng.integers(0, 8), rng.integers(0, 2)
        truth = BoxTruth(_boxes(rng, n), rng.integers(0, 3, n), _boxes(rng, crowd), rng.integers(0, 3, crowd))
        near = np.repeat(truth.boxes, 3, axis=0) + rng.normal(0, 6, (3 * n, 4)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        boxes = np.vstack([near, _boxes(rng, found)])
        labels = np.concatenate([np.repeat(truth.labels, 3), rng.integers(0, 4, found)])
        scores = np.round(rng.random(len(boxes)), 2).astype(np.float32)  # rounded: ties must break the same way
        truths.append(truth)
        predictions.append(Detections(boxes, scores, labels))
    return truths, predictions


def _by_pycocotools(truths, predictions):
    coco = pytest.importorskip("pycocotools.coco")
    evaluator = pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []

    def row(image, box, label, **extra):
        x1, y1, x2, y2 = (float(v) for v in box)
        box = [x1, y1, x2 - x1, y2 - y1]
        return {"image_id": image, "category_id": CLASSES.ids[label], "bbox": box, "area": box[2] * box[3], **extra}

    for image, (truth, found) in enumerate(zip(truths, predictions, strict=True), start=1):
        kinds = ((truth.boxes, truth.labels, 0), (truth.ignored_boxes, truth.ignored_labels, 1))
        for boxes, labels, crowd in kinds:
            for box, label in zip(boxes, labels, strict=True):
                annotations.append(row(image, box, label, iscrowd=crowd, id=len(annotations) + 1))
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            results.append(row(image, box, label, score=float(score)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth_api = coco.COCO()
        truth_api.dataset = {
            "images": [{"id": i + 1, "height": 600, "width": 800} for i in range(len(truths))],
            "categories": [{"id": i} for i in CLASSES.ids],
            "annotations": annotations,
            "info": {},
        }
        truth_api.createIndex()
        evaluation = evaluator.COCOeval(truth_api, truth_api.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed, found", [(0, 40), (1, 0), (2, 450)])
def test_every_figure_equals_pycocotools(seed, found):
    truths, predictions = _data(seed, images=25 if found < 100 else 4, found=found)
    reference = _by_pycocotools(truths, predictions)
    got = coco_average_precision(truths, predictions, CLASSES)
    assert 0.01 < reference.stats[0] < 0.99
    summary = [got.ap50_95, got.ap50, got.ap_small, got.ap_medium, got.ap_large]
    np.testing.assert_allclose(summary, reference.stats[[0, 1, 3, 4, 5]], rtol=0, atol=1e-15)
    table = reference.eval["precision"][..., 0, 2]  # (IoU, recall, class by rising id), all areas, 100 detections
    position = {class_id: k for k, class_id in enumerate(sorted(CLASSES.ids))}
    for k, class_id in enumerate(CLASSES.ids[:3]):
        curves = table[:, :, position[class_id]]
        np.testing.assert_allclose(got.precision[k], curves[0], rtol=0, atol=1e-15)
        assert got.ap50_per_class[k] == pytest.approx(np.mean(curves[0]), rel=0, abs=1e-15)
        assert got.ap50_95_per_class[k] == pytest.approx(np.mean(curves), rel=0, abs=1e-15)
    np.testing.assert_array_equal(got.recall, reference.params.recThrs)


def test_a_class_without_ground_truth_is_nan_and_left_out_of_the_mean():
    truths, predictions = _data(5)
    got = coco_average_precision(truths, predictions, CLASSES)
    assert np.isnan(got.ap50_per_class[3])
    assert np.isnan(got.ap50_95_per_class[3])
    assert np.isnan(got.precision[3]).all()
    assert got.ap50 == pytest.approx(np.nanmean(got.ap50_per_class))


def test_no_predictions_score_zero_and_no_ground_truth_scores_nan():
    truths, predictions = _data(6, images=3)
    nothing = [Detections.empty()] * 3
    assert coco_average_precision(truths, nothing, CLASSES).ap50 == 0.0
    no_truth = [BoxTruth(np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int))] * 3
    assert np.isnan(coco_average_precision(no_truth, predictions, CLASSES).ap50)
    assert np.isnan(coco_average_precision(no_truth, nothing, CLASSES).ap50_95)
    assert np.isnan(coco_average_precision([], [], CLASSES).ap50)


def test_the_ground_truth_itself_scores_one_and_crowd_hits_cost_nothing():
    truths, _ = _data(7)
    perfect = [
        Detections(
            np.vstack([t.boxes, t.ignored_boxes]),
            np.linspace(0.5, 1, len(t.boxes) + len(t.ignored_boxes)).astype(np.float32),
            np.concatenate([t.labels, t.ignored_labels]),
        )
        for t in truths
    ]
    got = coco_average_precision(truths, perfect, CLASSES)
    assert (got.ap50, got.ap50_95) == (1.0, 1.0)


def test_the_annotation_files_own_area_decides_the_size_range():
    rows = [{"image_id": 5, "category_id": 7, "bbox": [0, 0, 10, 10], "area": 5000.0}]
    got = average_precision_of_rows([5], rows, [{**rows[0], "score": 0.5}], CLASSES)
    assert np.isnan(got.ap_small)
    assert got.ap_medium == 1.0


def test_wrong_labels_lengths_and_values_are_refused_with_the_images_position():
    truths, predictions = _data(8, images=2)
    with pytest.raises(ValueError, match="1 predictions for 2 images"):
        coco_average_precision(truths, predictions[:1], CLASSES)
    bad = Detections(np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), np.array([4]))
    with pytest.raises(ValueError, match=r"image 1, predictions: labels must be 0\.\.3, got 4"):
        coco_average_precision(truths, [predictions[0], bad], CLASSES)
    nan = Detections(np.array([[0, 0, 1, 1]], np.float32), np.array([np.nan], np.float32), np.array([0]))
    with pytest.raises(ValueError, match="image 0, predictions: scores must be finite"):
        coco_average_precision(truths, [nan, predictions[1]], CLASSES)
    torn = Detections(np.array([[0, 0, np.inf, 1]], np.float32), np.ones(1, np.float32), np.array([0]))
    with pytest.raises(ValueError, match="image 0, predictions: boxes must be finite"):
        coco_average_precision(truths, [torn, predictions[1]], CLASSES)
