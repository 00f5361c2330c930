"""The writer keeps the challenge's format, survives interruptions and never shows half a file."""

import json
import os

import numpy as np
import pytest
from perfect_submission import CLASSES, write_perfect

from ppmtl.challenge import SubmissionWriter
from ppmtl.ops.polygons import decode
from ppmtl.structures import ClassProbs, Detections, SegMap


def _writer(path, weights="w1", **options):
    return SubmissionWriter(path, fingerprint={"weights": weights}, **options)


def _detections(scores):
    count = len(scores)
    boxes = np.tile(np.array([1.5, 2, 4, 7.25], np.float32), (count, 1))
    return Detections(boxes, np.array(scores, np.float32), np.arange(count) % 2)


def test_the_list_form_is_what_the_official_scorer_iterates(tmp_path):
    label_map = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with _writer(tmp_path / "p.json") as writer:
        writer.add_segmentation("some/where/a.b.jpg", SegMap(label_map))
        writer.add_classification("00001.jpg", ClassProbs(np.array([0.1, 0.2, 0.7], np.float32)))
        writer.add_detection(5, _detections([0.25, 0.1]), CLASSES)
        writer.add_detection(6, Detections.empty(), CLASSES)
        content = json.loads(writer.finish().read_text())
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


def test_the_best_boxes_are_kept(tmp_path):
    with _writer(tmp_path / "p.json", max_boxes=2) as writer:
        writer.add_detection(1, _detections([0.5, 0.125, 0.75, 0.25]), CLASSES)
        content = json.loads(writer.finish().read_text())
    assert [row["score"] for row in content["dec"]] == [0.75, 0.5]
    with _writer(tmp_path / "q.json") as writer:
        writer.add_detection(1, _detections(np.linspace(0, 1, 130)), CLASSES)
        assert len(json.loads(writer.finish().read_text())["dec"]) == 100


def test_nothing_at_all_is_still_a_file_of_three_lists(tmp_path):
    assert json.loads(_writer(tmp_path / "p.json").finish().read_text()) == {"seg": [], "cls": [], "dec": []}


def test_a_resumed_run_writes_the_same_bytes_and_knows_what_is_done(root):
    whole = write_perfect(root, root.out).read_bytes()
    with _writer(root.out) as writer:  # left without finish(), as an exception leaves it
        writer.add_classification("0.jpg", ClassProbs(np.eye(196)[0]))
        writer.add_detection(2, _detections([0.5]), CLASSES)
    assert root.out.read_bytes() == whole  # the old file stays until a new one is complete
    with _writer(root.out) as writer:
        assert writer.done("cls") == {"0.jpg"}
        assert writer.done("det") == {2}
        assert writer.done("seg") == frozenset()
        writer.add_classification("1.jpg", ClassProbs(np.eye(196)[7]))
        content = json.loads(writer.finish().read_text())
    assert content["cls"] == [{"0.jpg": 0}, {"1.jpg": 7}]
    assert os.listdir(root.out.parent) == ["pred.json"]
    assert write_perfect(root, root.out).read_bytes() == whole


def test_a_line_cut_off_by_a_crash_is_dropped_and_done_again(tmp_path):
    with _writer(tmp_path / "p.json") as writer:
        writer.add_classification("a.jpg", ClassProbs(np.eye(3)[1]))
        writer.add_classification("b.jpg", ClassProbs(np.eye(3)[2]))
    part = tmp_path / "p.json.parts" / "cls.part"
    part.write_bytes(part.read_bytes()[:-4])
    with _writer(tmp_path / "p.json") as writer:
        assert writer.done("cls") == {"a.jpg"}
        writer.add_classification("b.jpg", ClassProbs(np.eye(3)[2]))
        assert json.loads(writer.finish().read_text())["cls"] == [{"a.jpg": 1}, {"b.jpg": 2}]


def test_parts_of_another_run_are_refused_until_thrown_away(tmp_path):
    with _writer(tmp_path / "p.json") as writer:
        writer.add_classification("a.jpg", ClassProbs(np.eye(3)[1]))
    with pytest.raises(ValueError, match=r"p\.json\.parts: left by another run, with different weights"):
        _writer(tmp_path / "p.json", weights="w2")
    with pytest.raises(ValueError, match="different max_boxes"):
        _writer(tmp_path / "p.json", max_boxes=7)
    with _writer(tmp_path / "p.json", weights="w2", resume=False) as writer:
        assert writer.done("cls") == frozenset()


def test_a_damaged_part_is_named(tmp_path):
    _writer(tmp_path / "p.json").close()
    (tmp_path / "p.json.parts" / "cls.part").write_bytes(b"\0\0\0\n")
    with pytest.raises(ValueError, match=r"cls\.part: is damaged .* delete the folder"):
        _writer(tmp_path / "p.json")


def test_what_is_no_answer_is_refused_at_once(tmp_path):
    with _writer(tmp_path / "p.json") as writer:
        writer.add_classification("a.jpg", ClassProbs(np.eye(3)[1]))
        with pytest.raises(ValueError, match="added already"):
            writer.add_classification("a.jpg", ClassProbs(np.eye(3)[1]))
        with pytest.raises(ValueError, match=r"b\.jpg: class probabilities must be finite"):
            writer.add_classification("b.jpg", ClassProbs(np.array([np.nan, 1])))
        with pytest.raises(ValueError, match="image_id 3: boxes and scores must be finite"):
            writer.add_detection(3, _detections([np.nan]), CLASSES)
        with pytest.raises(ValueError, match="counted from 1, got 0"):
            writer.add_detection(0, _detections([0.5]), CLASSES)
        with pytest.raises(ValueError, match="no ignored pixels"):
            writer.add_segmentation("a.jpg", SegMap(np.full((2, 2), 255, np.uint8)))


def test_names_may_hold_quotes_tabs_and_any_script(tmp_path):
    with _writer(tmp_path / "p.json") as writer:
        writer.add_classification('ü "1"\t.jpg', ClassProbs(np.eye(3)[1]))
    with _writer(tmp_path / "p.json") as writer:
        assert writer.done("cls") == {'ü "1"\t.jpg'}
        assert json.loads(writer.finish().read_text())["cls"] == [{'ü "1"\t.jpg': 1}]
