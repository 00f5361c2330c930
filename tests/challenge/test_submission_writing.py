"""The writer keeps the challenge's format, survives interruptions and never shows half a file."""

import json
import os

import numpy as np
import pytest
from perfect_submission import entry, write_perfect

from ppmtl.challenge.writing import SubmissionWriter
from ppmtl.ops.boxes import Detections
from ppmtl.ops.polygons import decode
from ppmtl.tasks.classification import ClassProbs
from ppmtl.tasks.segmentation import SegMap


def _writer(path, weights="w1", **options):
    return SubmissionWriter(path, fingerprint={"weights": weights}, **options)


def _detections(scores):
    count = len(scores)
    boxes = np.tile(np.array([1.5, 2, 4, 7.25], np.float32), (count, 1))
    return Detections(boxes, np.array(scores, np.float32), np.arange(count) % 2)


def test_the_list_form_is_what_the_official_scorer_iterates(tmp_path):
    label_map = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with _writer(tmp_path / "p.json") as writer:
        writer.add("seg", "a.b.jpg", entry("seg", SegMap(label_map)))
        writer.add("cls", "00001.jpg", entry("cls", ClassProbs(np.array([0.1, 0.2, 0.7], np.float32))))
        writer.add("det", 5, entry("det", _detections([0.25, 0.1])))
        writer.add("det", 6, entry("det", Detections.empty()))
        writer.finish()
    content = json.loads((tmp_path / "p.json").read_text())
    assert list(content) == ["seg", "cls", "dec"]
    assert content["cls"] == [{"00001.jpg": 2}]
    assert content["dec"] == [
        {"image_id": 5, "category_id": 3, "bbox": [1.5, 2.0, 2.5, 5.25], "score": 0.25},
        {"image_id": 5, "category_id": 8, "bbox": [1.5, 2.0, 2.5, 5.25], "score": 0.1},
    ]
    ((name, polygons),) = content["seg"][0].items()
    assert name == "a.b.png"
    assert list(polygons) == [str(index) for index in range(19)]
    assert polygons["18"] == []
    np.testing.assert_array_equal(decode(polygons, (3, 4)), label_map)


def test_the_dict_form_is_the_readmes(root):
    listed = json.loads(write_perfect(root, root.out).read_text())
    as_dict = json.loads(write_perfect(root, root.out, form="dict").read_text())
    assert as_dict["cls"] == {name: label for row in listed["cls"] for name, label in row.items()}
    assert as_dict["seg"] == {name: polygons for row in listed["seg"] for name, polygons in row.items()}
    assert as_dict["dec"] == listed["dec"]


def test_the_best_boxes_are_kept():
    rows = entry("det", _detections([0.75, 0.5, 0.25, 0.125]), max_boxes=2)
    assert [row["score"] for row in rows] == [0.75, 0.5]


def test_nothing_at_all_is_still_a_file_of_three_lists(tmp_path):
    _writer(tmp_path / "p.json").finish()
    assert json.loads((tmp_path / "p.json").read_text()) == {"seg": [], "cls": [], "dec": []}


def test_a_resumed_run_writes_the_same_bytes_and_knows_what_is_done(root):
    intact = write_perfect(root, root.out).read_bytes()
    with _writer(root.out) as writer:  # left without finish(), as an exception leaves it
        writer.add("cls", "0.jpg", 0)
        writer.add("det", 2, [])
    assert root.out.read_bytes() == intact  # the old file stays until a new one is complete
    with _writer(root.out) as writer:
        assert writer.left("cls", ["0.jpg", "1.jpg"]) == ["1.jpg"]
        assert writer.left("det", [2]) == []
        writer.add("cls", "1.jpg", 7)
        writer.finish()
    assert json.loads(root.out.read_text())["cls"] == [{"0.jpg": 0}, {"1.jpg": 7}]
    assert os.listdir(root.out.parent) == ["pred.json"]
    assert write_perfect(root, root.out).read_bytes() == intact


def test_a_file_that_lacks_images_is_not_written(tmp_path):
    with _writer(tmp_path / "p.json") as writer:
        writer.left("cls", ["0.png", "1.png"])
        writer.add("cls", "1.png", 0)
        with pytest.raises(ValueError, match=r"cls lacks 1 images, e\.g\. 0\.png"):
            writer.finish()
    assert os.listdir(tmp_path) == ["p.json.parts"]


def test_a_damaged_part_is_named(tmp_path):
    _writer(tmp_path / "p.json").close()
    (tmp_path / "p.json.parts" / "cls.0.part").write_bytes(b"\0\0\0\n")
    with pytest.raises(ValueError, match=r"cls\.0\.part: is damaged .* delete "):
        _writer(tmp_path / "p.json")


def test_what_is_no_answer_is_refused_at_once():
    with pytest.raises(ValueError, match="class probabilities must be finite"):
        entry("cls", ClassProbs(np.array([np.nan, 1])))
    with pytest.raises(ValueError, match="boxes and scores must be finite"):
        entry("det", _detections([np.nan]))
    with pytest.raises(ValueError, match="no ignored pixels"):
        entry("seg", SegMap(np.full((2, 2), 255, np.uint8)))


def test_names_may_hold_quotes_tabs_and_any_script(tmp_path):
    with _writer(tmp_path / "p.json") as writer:
        writer.add("cls", 'ü "1"\t.jpg', 1)
    with _writer(tmp_path / "p.json") as writer:
        assert writer.left("cls", ['ü "1"\t.jpg']) == []
        writer.finish()
    assert json.loads((tmp_path / "p.json").read_text())["cls"] == [{'ü "1"\t.jpg': 1}]
