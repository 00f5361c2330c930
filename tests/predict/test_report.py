"""Reports: text, files, plots."""

import json

import cv2
import numpy as np
import pytest

from ppmtl.predict import report
from ppmtl.predict.evaluate import Evaluation
from ppmtl.predict.extremes import Extremes, ScoredImage
from ppmtl.tasks.base import Metrics


@pytest.fixture
def result():
    seg = Metrics(
        "miou",
        {"miou": 0.5, "pixel_accuracy": float("nan")},
        {"class": ["road", "车"], "iou": [0.5, float("nan")], "pixels": [100.0, 0.0]},
        confusion=np.array([[90, 10], [0, 0]]),
    )
    recall = np.linspace(0, 1, 101)
    det = Metrics("ap50", {"ap50": 0.75}, curves={"pl50": (recall, 1 - recall / 2)})
    pair = ScoredImage(0.25, 7, "street.jpg", np.zeros((8, 20, 3), np.uint8))
    return Evaluation({"seg": seg, "det": det}, {"seg": 0.25, "det": 0.5}, {}, {"seg": Extremes(worst=(pair,))})


def test_images_without_a_label_are_said_in_text_line_and_file(result, tmp_path):
    result.unlabelled["det"] = 3
    assert "== det (0.500 s per image; 3 images without a label not measured)" in report.text(result)
    assert report.one_line(result) == "seg miou 0.5000 | det ap50 0.7500 (3 images unlabelled) | score 0.6250"
    tasks = json.loads(report.write(result, tmp_path, {})[0].read_text())["tasks"]
    assert tasks["det"]["unlabelled_images"] == 3
    assert "unlabelled_images" not in tasks["seg"]


def test_the_score_is_the_last_line_and_undefined_values_are_not_numbers(result):
    lines = report.text(result).splitlines()
    assert lines[-1] == "score 0.6250  (mean of seg.miou, det.ap50)"
    assert any(line.split() == ["pixel_accuracy", "n/a"] for line in lines)
    assert any(line.split() == ["road", "0.5000", "100"] for line in lines)
    assert report.one_line(result) == "seg miou 0.5000 | det ap50 0.7500 | score 0.6250"


def test_a_confusion_matrix_with_a_background_has_a_row_more_than_classes(result, tmp_path):
    matrix = np.array([[3, 0, 1], [0, 2, 0], [1, 0, 0]])
    det = Metrics("ap50", {"ap50": 0.75}, {"class": ["a", "b"]}, confusion=matrix, confusion_note="boxes")
    result.metrics["det"] = det
    assert "det_confusion.png" in {path.name for path in report.write(result, tmp_path, {})}


def test_files_are_plain_json_csv_and_plots(result, tmp_path):
    names = {path.name for path in report.write(result, tmp_path, {"weights": "w"})}
    pictures = {"seg_confusion.png", "det_precision_recall.png", "seg_worst_0.jpg"}
    assert names == {"metrics.json", "seg_per_class.csv"} | pictures
    document = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert document["tasks"]["seg"]["pixel_accuracy"] is None
    assert document["weights"] == "w"
    worst = [{"file": "seg_worst_0.jpg", "score": 0.25, "image": "street.jpg"}]
    assert document["images"] == {"seg": {"worst": worst, "best": []}}
    assert (tmp_path / "seg_per_class.csv").read_text().splitlines()[0] == "class,iou,pixels"
    for name in ("seg_confusion.png", "det_precision_recall.png"):
        plot = cv2.imread(str(tmp_path / name))
        assert len(np.unique(plot.reshape(-1, 3), axis=0)) > 10  # something is drawn
