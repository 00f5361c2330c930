"""Several label formats over the same images as one data set: read once, a label per task, evaluated and trained together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppmtl.data import reader as reader_module
from ppmtl.data.labels import Boxes, LabelMap
from ppmtl.data.readers.coco import COCO
from ppmtl.data.readers.joined import Joined
from ppmtl.data.readers.label_png import LabelPNG
from ppmtl.structures import ClassList
from ppmtl.tasks.detection import Detection

TASKS = {"seg": ClassList(("road", "car")), "det": ClassList(("sign",), (7,))}
READERS = {
    "seg": partial(LabelPNG, images="images", labels="labels"),
    "det": partial(COCO, images="images", annotations="det.json"),
}


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Three images, label maps of all, boxes of the last two."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), np.full((8, 12, 3), index, np.uint8))
        cv2.imwrite(str(tmp_path / "labels" / f"{index}.png"), np.full((8, 12), index % 2, np.uint8))
    images = [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 12} for i in (1, 2)]
    boxes = [{"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]}]
    (tmp_path / "det.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    return tmp_path


def test_images_that_all_readers_have_carry_a_label_per_task_and_are_read_once(streets, monkeypatch) -> None:
    reads = []
    original = reader_module.read_image
    monkeypatch.setattr(reader_module, "read_image", lambda path: reads.append(path) or original(path))
    joined = Joined(streets, TASKS, readers=READERS)
    samples = [joined[i] for i in range(len(joined))]
    assert [Path(sample.path).name for sample in samples] == ["1.png", "2.png"] == [Path(path).name for path in reads]
    seg, det = samples[1].labels["seg"], samples[1].labels["det"]
    assert isinstance(seg, LabelMap)
    assert isinstance(det, Boxes)
    assert (seg.labels == 0).all()
    assert det.boxes.tolist() == [[1, 2, 4, 6]]
    assert "2 images with labels for seg, det" in joined.describe()
    assert joined.files(1) == [str(streets / "images/2.png"), str(streets / "labels/2.png")]
    assert [remark.kind for remark in joined.remarks] == ["no_categories", "image_left_out"]


def test_images_that_only_some_readers_have_are_left_out_and_counted_or_carry_the_labels_that_there_are(
    streets,
) -> None:
    (streets / "labels" / "2.png").unlink()
    readers = READERS | {"seg": partial(READERS["seg"], missing_labels="skip")}
    common = Joined(streets, TASKS, readers=readers)
    assert [Path(common.path(i)).name for i in range(len(common))] == ["1.png"]
    assert "1 images with labels for seg, det, 2 that only some have left out (images: all)" in common.describe()
    every = Joined(streets, TASKS, readers=readers, images="all")
    labels = {Path(every.path(i)).name: list(every[i].labels) for i in range(len(every))}
    assert labels == {"0.png": ["seg"], "1.png": ["seg", "det"], "2.png": ["det"]}
    assert "3 images with labels for seg (2), det (2) (" in every.describe()
    assert [remark.kind for remark in every.remarks] == ["no_categories"]
    assert [Path(r.place).name for r in common.remarks if r.kind == "image_left_out"] == ["0.png", "2.png"]
    assert len(Joined(streets, {"det": TASKS["det"]}, readers=readers, images="all")) == 2  # of the tasks asked for


def test_an_image_that_a_coco_file_lists_without_boxes_is_labelled_one_that_it_does_not_list_is_not(streets) -> None:
    every = Joined(streets, TASKS, readers=READERS, images="all")
    found = {Path(every.path(i)).name: every[i].labels.get("det") for i in range(len(every))}
    assert found["0.png"] is None
    assert isinstance(found["1.png"], Boxes)
    assert len(found["1.png"].boxes) == 0
    assert Detection("det", TASKS["det"]).collate([every[0], every[1]])["supervised"].tolist() == [0, 1]


def test_readers_of_tasks_that_are_not_wanted_are_not_built(streets) -> None:
    (streets / "det.json").unlink()
    joined = Joined(streets, {"seg": TASKS["seg"]}, readers=READERS)
    assert len(joined) == 3
    assert list(joined[0].labels) == ["seg"]


def test_a_task_without_reader_and_data_sets_without_a_common_image_are_errors(streets) -> None:
    with pytest.raises(ValueError, match="no reader for det; readers has seg"):
        Joined(streets, TASKS, readers={"seg": READERS["seg"]})
    (streets / "other").mkdir()
    cv2.imwrite(str(streets / "other" / "1.png"), np.zeros((8, 12, 3), np.uint8))
    (streets / "masks").mkdir()
    cv2.imwrite(str(streets / "masks" / "1.png"), np.zeros((8, 12), np.uint8))
    elsewhere = {**READERS, "seg": partial(LabelPNG, images="other", labels="masks")}
    for images in ("common", "all"):
        with pytest.raises(ValueError, match=r"no image is in all data sets \(seg 1, det 2 images\).*images: all"):
            Joined(streets, TASKS, readers=elsewhere, images=images)


def test_the_paths_of_all_readers_are_required(streets) -> None:
    assert Joined.required_paths(streets, ["det", "seg"], readers=READERS) == [
        streets / "images", streets / "labels", streets / "images", streets / "det.json",
    ]  # fmt: skip
    assert Joined.required_paths(streets, ["seg"], readers=READERS) == [streets / "images", streets / "labels"]


def test_a_reader_for_one_task_says_how_to_have_several(streets) -> None:
    with pytest.raises(ValueError, match=r"LabelPNG has labels for one task, got seg, det.*type: joined"):
        LabelPNG(streets, TASKS, images="images", labels="labels")


def test_a_scan_names_every_bad_file(streets) -> None:
    cv2.imwrite(str(streets / "labels" / "1.png"), np.full((8, 12), 99, np.uint8))
    (streets / "images" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    found = list(READERS["seg"](streets, {"seg": TASKS["seg"]}).scan())
    assert [Path(finding.place).name for finding in found] == ["1.png", "2.png"]
    assert "99" in found[0].problem
