"""The three readers: names are paired by name, every wrong entry is named, nothing vanishes silently."""

from __future__ import annotations

import json
import logging
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from samples import boxes_of, map_of

from ppmtl.data.readers.coco import COCO
from ppmtl.data.readers.image_list import ImageList
from ppmtl.data.readers.label_png import LabelPNG
from ppmtl.structures import ClassList

THREE = ClassList(("road", "car", "sign"))


def write_image(path: Path, pixels: np.ndarray | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8) if pixels is None else pixels).save(path, **options)


# ---- LabelPNG -------------------------------------------------------------------------------------------------------


def label_set(root: Path, names: list[str], label_suffix: str = "") -> Path:
    for value, name in enumerate(names):
        write_image(root / "images" / f"{name}.jpg")
        write_image(root / "labels" / f"{name}{label_suffix}.png", np.full((20, 30), value, np.uint8))
    return root


def test_labels_are_paired_by_name_in_sub_folders_too(tmp_path: Path) -> None:
    root = label_set(tmp_path, ["b/x", "a", "c.d"], "_train_id")
    dataset = LabelPNG(root, {"seg": THREE}, images="images", labels="labels", label_suffix="_train_id")
    found = {Path(dataset.path(i)).name: int(map_of(dataset[i])[0, 0]) for i in range(len(dataset))}
    assert found == {"x.jpg": 0, "a.jpg": 1, "c.d.jpg": 2}
    assert "3 images" in dataset.describe()


def test_one_missing_label_is_named_and_does_not_shift_the_rest(tmp_path: Path) -> None:
    root = label_set(tmp_path, ["a", "b", "c"])
    (root / "labels/b.png").unlink()
    with pytest.raises(ValueError, match=r"1 files have no partner.*label_suffix[^\n]*\n.*b\.jpg: no label .*b\.png"):
        LabelPNG(root, {"seg": THREE}, images="images", labels="labels")


def test_images_without_a_label_can_be_left_out_and_are_counted_but_labels_without_an_image_cannot(
    tmp_path: Path,
) -> None:
    root = label_set(tmp_path, ["a", "b"])
    (root / "labels/b.png").unlink()
    make = partial(LabelPNG, root, {"seg": THREE}, images="images", labels="labels")
    with pytest.raises(ValueError, match="missing_labels: skip"):
        make()
    found = make(missing_labels="skip")
    assert [Path(found.path(i)).name for i in range(len(found))] == ["a.jpg"]
    assert "1 images with label maps (1 without one left out)" in found.describe()
    assert [(r.severity, r.kind, Path(r.place).name) for r in found.remarks] == [("note", "image_left_out", "b.jpg")]
    with pytest.raises(ValueError, match="2 files have no partner"):  # none fits: a wrong suffix is no gap
        make(missing_labels="skip", label_suffix="_id")
    write_image(root / "labels/c.png")
    with pytest.raises(ValueError, match=r"1 files have no partner[^\n]*\n.*c\.png: no image"):
        make(missing_labels="skip")


def test_missing_partners_on_both_sides_are_counted_and_ten_are_named(tmp_path: Path) -> None:
    root = label_set(tmp_path, [f"{i:02}" for i in range(15)])
    for i in range(13):
        (root / ("labels" if i < 12 else "images") / f"{i:02}.{'png' if i < 12 else 'jpg'}").unlink()
    with pytest.raises(ValueError, match="13 files have no partner") as caught:
        LabelPNG(root, {"seg": THREE}, images="images", labels="labels")
    assert "... and 3 more" in str(caught.value)
    assert str(caught.value).count("no label") == 10


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    root = label_set(tmp_path, ["a"])
    write_image(root / "images/a.png")
    with pytest.raises(ValueError, match="two files of one name"):
        LabelPNG(root, {"seg": THREE}, images="images", labels="labels")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        LabelPNG(label_set(tmp_path, ["a"]), {"seg": THREE}, images="empty", labels="labels")


def test_a_label_out_of_range_is_named_with_its_file_when_read(tmp_path: Path) -> None:
    root = label_set(tmp_path, ["a"])
    write_image(root / "labels/a.png", np.full((20, 30), 255, np.uint8))
    dataset = LabelPNG(root, {"seg": THREE}, images="images", labels="labels")
    assert (map_of(dataset[0]) == 255).all()
    write_image(root / "labels/a.png", np.tile(np.array([0, 3, 19], np.uint8), (20, 10)))
    with pytest.raises(ValueError, match=r"a\.png: labels \[3, 19\] are no classes, allowed are 0\.\.2 and 255"):
        dataset[0]


def test_label_of_another_size_is_refused_even_for_turned_images(tmp_path: Path) -> None:
    root = label_set(tmp_path, ["a"])
    exif = Image.Exif()
    exif[274] = 6
    write_image(root / "images/a.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"a\.png: .*\(20, 30\).*a\.jpg.*\(30, 20\).*EXIF"):
        LabelPNG(root, {"seg": THREE}, images="images", labels="labels")[0]


def test_label_maps_need_classes_without_gaps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got ids \[0, 7\]"):
        LabelPNG(label_set(tmp_path, ["a"]), {"seg": ClassList(("a", "b"), (0, 7))}, images="images", labels="labels")


def test_numbers_of_the_files_are_translated_to_classes(tmp_path: Path) -> None:
    levels = np.zeros((20, 30), np.uint8)
    levels[:, :10], levels[:, 10:20], levels[0, 0] = 7, 200, 255
    write_image(tmp_path / "images/a.jpg")
    write_image(tmp_path / "labels/a.png", levels)
    values = {"sign": (200,), "road": (0, 3), "car": (7,)}
    reader = LabelPNG(tmp_path, {"seg": THREE}, images="images", labels="labels", values=values)
    found = map_of(reader[0])
    assert found[0, 0] == 255
    assert [found[1, x] for x in (0, 10, 20)] == [1, 2, 0]
    unknown = LabelPNG(tmp_path, {"seg": THREE}, images="images", labels="labels", values=values | {"car": (8,)})
    with pytest.raises(ValueError, match=r"a\.png: labels \[7\] are no classes, allowed are 0, 3, 8, 200, 255"):
        unknown[0]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"road": (0,), "car": (1,)}, "missing sign, not in the class list none"),
        ({"road": (0,), "car": (1,), "sign": (2,), "tree": (3,)}, "not in the class list tree"),
        (
            {"road": (0,), "car": (1, 0), "sign": (2,)},
            "values of class 'car': 0 must be 0..254 and mean one class only",
        ),
        ({"road": (0,), "car": (1,), "sign": (255,)}, "values of class 'sign': 255 must be"),
    ],
)
def test_numbers_that_mean_no_class_or_several_are_refused(tmp_path: Path, values: Any, complaint: str) -> None:
    root = label_set(tmp_path, ["a"])
    with pytest.raises(ValueError, match=re.escape(complaint)):
        LabelPNG(root, {"seg": THREE}, images="images", labels="labels", values=values)


# ---- ImageList ------------------------------------------------------------------------------------------------------


def image_list(root: Path, text: str, names: tuple[str, ...] = ("a.jpg", "b c.jpg", "车.jpg")) -> Path:
    for name in names:
        write_image(root / "train" / name)
    (root / "train.txt").write_text(text, encoding="utf-8")
    return root


def test_list_lines_give_name_and_class_with_blanks_in_names(tmp_path: Path) -> None:
    root = image_list(tmp_path, "a.jpg 2\r\nb c.jpg  0\n\n车.jpg\t2\n")
    dataset = ImageList(root, {"cls": THREE}, images="train", list_file="train.txt")
    assert [Path(dataset.path(i)).name for i in range(3)] == ["a.jpg", "b c.jpg", "车.jpg"]
    np.testing.assert_array_equal(dataset.class_indices(), [2, 0, 2])
    assert dataset[0].labels["cls"].index == 2
    assert "0 to 2 per class, 1 classes without an image" in dataset.describe()


def test_list_ids_are_translated_by_the_class_list(tmp_path: Path) -> None:
    root = image_list(tmp_path, "a.jpg 20\n")
    dataset = ImageList(root, {"cls": ClassList(("x", "y"), (10, 20))}, images="train", list_file="train.txt")
    assert dataset[0].labels["cls"].index == 1


def test_all_bad_lines_come_in_one_error_with_their_numbers(tmp_path: Path) -> None:
    root = image_list(tmp_path, "a.jpg 0\nb.jpg\na.jpg 1\nb c.jpg 3\nx.jpg -1\ny.jpg 1.0\n")
    with pytest.raises(ValueError, match=r"train\.txt: 5 bad lines; ids go from 0 to 2") as caught:
        ImageList(root, {"cls": THREE}, images="train", list_file="train.txt")
    for part in ("line 2: expected", "line 3: 'a.jpg' is already on line 1", "line 4: class id 3", "line 5", "line 6"):
        assert part in str(caught.value)


def test_missing_images_of_a_list_are_named(tmp_path: Path) -> None:
    root = image_list(tmp_path, "a.jpg 0\nnope.jpg 1\n")
    with pytest.raises(ValueError, match=r"train\.txt: 1 files are listed but missing.*\n.*nope\.jpg"):
        ImageList(root, {"cls": THREE}, images="train", list_file="train.txt")


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lists no images"):
        ImageList(image_list(tmp_path, "\n"), {"cls": THREE}, images="train", list_file="train.txt")


# ---- COCO -----------------------------------------------------------------------------------------------------------

GAPS = ClassList(("stop", "yield"), (3, 90))


def box(image_id: Any, bbox: Any, category_id: Any = 3, **extra: Any) -> dict[str, Any]:
    return {"image_id": image_id, "bbox": bbox, "category_id": category_id, **extra}


def coco(root: Path, annotations: Any, images: Any = None) -> Path:
    for name in ("a.jpg", "b.jpg"):
        write_image(root / "train" / name)
    if images is None:
        images = [{"id": i, "file_name": f"{n}.jpg", "height": 20, "width": 30} for i, n in ((7, "a"), (2, "b"))]
    content = {"images": images, "annotations": annotations, "categories": []}
    (root / "train.json").write_text(json.dumps(content))
    return root


def read(root: Path) -> COCO:
    return COCO(root, {"det": GAPS}, images="train", annotations="train.json")


def test_category_gaps_are_translated_and_boxes_become_xyxy(tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [box(7, [1, 2, 3.5, 4], 90), box(7, [0, 0, 5, 5], 3)]))
    sample = dataset[0]
    np.testing.assert_array_equal(boxes_of(sample).boxes, [[1, 2, 4.5, 6], [0, 0, 5, 5]])
    np.testing.assert_array_equal(boxes_of(sample).classes, [1, 0])
    assert (boxes_of(sample).boxes.dtype, boxes_of(sample).classes.dtype) == (np.float32, np.int64)


def test_images_without_objects_stay_in_and_are_counted(tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [box(7, [1, 2, 3, 4])]))
    assert len(dataset) == 2
    empty = dataset[1]
    assert (boxes_of(empty).boxes.shape, boxes_of(empty).classes.shape) == ((0, 4), (0,))
    assert "2 images (1 without objects), 1 boxes" in dataset.describe()


def test_boxes_are_clipped_and_degenerate_ones_dropped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [[-5, 15, 10, 10], [5, 5, 0, 4], [5, 5, -3, 4], [29.5, 3, 5, 5], [40, 40, 5, 5]]
    with caplog.at_level(logging.WARNING):
        dataset = read(coco(tmp_path, [box(7, b) for b in boxes]))
    np.testing.assert_array_equal(boxes_of(dataset[0]).boxes, [[0, 15, 5, 20]])
    assert [record.message.count("4 boxes dropped") for record in caplog.records] == [1]
    assert "4 dropped" in dataset.describe()


def test_crowd_and_ignored_boxes_are_kept_apart(tmp_path: Path) -> None:
    dataset = read(
        coco(tmp_path, [box(7, [1, 1, 5, 5], iscrowd=1), box(7, [2, 2, 5, 5], 90, ignore=1), box(7, [3, 3, 5, 5])])
    )
    sample = dataset[0]
    np.testing.assert_array_equal(boxes_of(sample).boxes, [[3, 3, 8, 8]])
    np.testing.assert_array_equal(boxes_of(sample).ignored, [[1, 1, 6, 6], [2, 2, 7, 7]])
    np.testing.assert_array_equal(boxes_of(sample).ignored_classes, [0, 1])


@pytest.mark.parametrize(
    "entry, complaint",
    [
        (box(7, [1, 1, 5, 5], 4), r"annotations\[0\]: category_id 4 \(a\.jpg\) is not in the class list"),
        (box(99, [1, 1, 5, 5]), r"annotations\[0\]: image_id 99 is not in 'images'"),
        (box(7, [1, 1, 5]), r"bbox \[1, 1, 5\] \(a\.jpg\) must be four finite numbers"),
        (box(7, [1, 1, 5, float("nan")]), "four finite numbers"),
        (box(7, None), "four finite numbers"),
        ([], "expected a mapping"),
    ],
)
def test_wrong_annotations_are_named(tmp_path: Path, entry: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.json: 1 wrong entries; .*its ids: 3, 90.*\n.*{complaint}"):
        read(coco(tmp_path, [entry]))


@pytest.mark.parametrize(
    "second, complaint",
    [
        ({"id": 7, "file_name": "b.jpg", "height": 20, "width": 30}, "image id 7 is already a.jpg"),
        ({"id": 2, "file_name": "a.jpg", "height": 20, "width": 30}, "'a.jpg' is listed 2 times"),
        ({"id": "2", "file_name": "b.jpg", "height": 20, "width": 30}, "whole numbers"),
        ({"id": 2, "file_name": "b.jpg", "width": 30}, "whole numbers"),
        ({"id": 2, "height": 20, "width": 30}, "file_name"),
    ],
)
def test_wrong_image_entries_are_named(tmp_path: Path, second: Any, complaint: str) -> None:
    first = {"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}
    with pytest.raises(ValueError, match=rf"1 wrong entries.*\n.*{complaint}"):
        read(coco(tmp_path, [], [first, second]))


def test_all_wrong_entries_come_in_one_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="12 wrong entries") as caught:
        read(coco(tmp_path, [box(7, [1, 1, 5, 5], 4)] * 12))
    assert "... and 2 more" in str(caught.value)


@pytest.mark.parametrize("content", ["[]", '{"images": []}', '{"images": [], "annotations": []}', "{"])
def test_files_that_are_not_coco_are_refused(tmp_path: Path, content: str) -> None:
    coco(tmp_path, [])
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(ValueError, match=r"train\.json: "):
        read(tmp_path)


def test_a_image_of_another_size_is_named_with_the_json(tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, []))
    write_image(tmp_path / "train/a.jpg", np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.jpg: .*\(30, 20\), but .*train\.json says \(20, 30\).*turned"):
        dataset[0]


def test_missing_images_of_a_json_are_named(tmp_path: Path) -> None:
    coco(tmp_path, [])
    (tmp_path / "train/b.jpg").unlink()
    with pytest.raises(ValueError, match=r"train\.json: 1 files are listed but missing.*\n.*b\.jpg"):
        read(tmp_path)


def categories(root: Path, *pairs: tuple[int, str]) -> Path:
    content = json.loads((root / "train.json").read_text())
    content["categories"] = [{"id": number, "name": name} for number, name in pairs]
    (root / "train.json").write_text(json.dumps(content))
    return root


def test_five_names_over_a_file_with_ids_1_to_4_are_refused_as_shifted_by_one(tmp_path: Path) -> None:
    root = categories(coco(tmp_path, []), (1, "a"), (2, "b"), (3, "c"), (4, "d"))
    five = ClassList(("a", "b", "c", "d", "e"))
    with pytest.raises(
        ValueError, match=r"4 wrong entries.*\n.*categories\[0\]: id 1 is 'a' here, but 'b' in the class list"
    ):
        COCO(root, {"det": five}, images="train", annotations="train.json")
    named = ClassList(("A", "b", "C", "d"), (1, 2, 3, 4))
    assert len(COCO(root, {"det": named}, images="train", annotations="train.json")) == 2
    assert len(COCO(root, {"det": ClassList(("0", "1", "2", "3", "4"))}, images="train", annotations="train.json")) == 2


def test_scan_yields_remarks_on_annotations_and_samples_that_are_wrong(tmp_path: Path) -> None:
    root = coco(tmp_path, [box(7, [1, 2, 3, 4]), box(7, [1, 2, 3, 4]), box(2, [10, 10, 50, 5])])
    (root / "train/b.jpg").write_bytes(b"")
    found = [(f.severity, f.kind, f.place.removeprefix(f"{root}/")) for f in read(root).scan()]
    assert found == [
        ("note", "no_categories", "train.json"),
        ("warning", "duplicate_box", "train.json: annotations[1] (a.jpg)"),
        ("warning", "box_beyond_image", "train.json: annotations[2] (b.jpg)"),
        ("error", "empty_file", "train/b.jpg"),
    ]
