"""A folder of data becomes a config: what is recognised, what is written, and that it trains as written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_streets import write_streets

from ppmtl import build
from ppmtl.studies.anchors import fit_anchors, recall
from ppmtl.studies.file_tree import Tree
from ppmtl.studies.found_data import find
from ppmtl.studies.new_config import detector_size, write_config

ROOT = Path(__file__).resolve().parents[2]


def write_images(folder: Path, names: list[str], side: int = 64) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (side, side, 3), np.uint8))


def streets(root: Path) -> Path:
    """Three tasks in three layouts: COCO with a split by folder, label PNGs, one folder of images per class."""
    for split in ("train", "val"):
        write_streets(root / split, count=12)
        (root / "det" / split).mkdir(parents=True)
        (root / split / "list.txt").unlink()
        content = json.loads((root / split / "boxes.json").read_text())
        content["categories"] = [{"id": 1, "name": "square"}]
        rng = np.random.default_rng(1)
        for annotation in content["annotations"]:  # sizes of all kinds, for anchors
            annotation["bbox"][2:] = rng.integers(3, 20, 2).tolist()
        for image in (root / split / "images").iterdir():
            (root / "det" / split / image.name).write_bytes(image.read_bytes())
        (root / "det" / f"{split}.json").write_text(json.dumps(content))
        (root / split / "boxes.json").unlink()
        for part in ("images", "labels"):
            (root / "seg" / part).mkdir(parents=True, exist_ok=True)
            (root / split / part).rename(root / "seg" / part / split)
        (root / split).rmdir()
    (root / "seg" / "classes.txt").write_text("road\nsquare\n")
    write_images(root / "cls" / "red", [f"{i}.png" for i in range(30)])
    write_images(root / "cls" / "train", [f"{i}.png" for i in range(10)])  # a class, and the name of a split
    return root


def test_three_layouts_are_recognised_with_their_splits_classes_and_counts(tmp_path: Path) -> None:
    found = {data.kind: data for data in find(streets(tmp_path))}
    assert list(found) == ["coco", "label_png", "folders"]
    assert found["coco"].splits["val"] == {"images": "det/val", "annotations": "det/val.json"}
    assert found["coco"].classes == {"count": 1, "names": "det/train.json"}
    assert found["coco"].counts.tolist() == [12]
    assert found["coco"].sides.shape == (12, 2)
    assert found["label_png"].splits["train"] == {"images": "seg/images/train", "labels": "seg/labels/train"}
    assert found["label_png"].classes == {"count": 2, "names": "seg/classes.txt"}
    assert found["folders"].classes == {"names": ["red", "train"]}
    assert {split: len(files) for split, files in found["folders"].images.items()} == {"train": 36, "val": 4}
    assert found["folders"].counts.tolist() == [27, 9]


@pytest.mark.slow
def test_a_config_trains_as_written(tmp_path: Path) -> None:
    data, out = streets(tmp_path / "data"), tmp_path / "mine.yml"
    report = write_config(data, out)
    assert "det: coco, 12 train, 12 val images of about 64 x 64 px, 12 boxes, 1 classes" in report
    assert "every tenth image of each class is held out" in report
    assert {path.name for path in (tmp_path / "mine_lists").iterdir()} == {"cls_train.txt", "cls_val.txt"}
    command = [sys.executable, str(ROOT / "tools/train.py"), "-c", str(out), "--fast_dev_run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training, evaluation, saving and loading work" in done.stdout + done.stderr


def test_what_is_written_comes_from_the_data(tmp_path: Path) -> None:
    data, out = streets(tmp_path / "data"), tmp_path / "mine.yml"
    write_config(data, out)
    tree = build.load(str(out)).tree.data
    assert tree["tasks"]["det"]["input_size"] == tree["sources"]["det"]["transforms"][0]["size"] == [64, 64]
    assert np.shape(tree["model"]["heads"]["det"]["anchors"]) == (3, 3, 2)
    assert tree["sources"]["cls"]["sampler"] == "class_balanced"  # 27 and 9 images
    assert tree["sources"]["cls"]["dataset"]["list_file"] == "../mine_lists/cls_train.txt"
    assert tree["train"]["steps_per_epoch"] == 3
    assert "# classes have 9 to 27 images" in out.read_text()
    with pytest.raises(ValueError, match="exists already"):
        write_config(data, out)


def test_lists_name_classes_by_the_file_of_the_same_ending_and_the_plainest_list_is_taken(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ["a b.png", "c.png"])
    (tmp_path / "train.txt").write_text("a b.png 0\nc.png 2\n")
    (tmp_path / "train_body.txt").write_text("a b.png 0\nc.png 1\n")
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / "classes_body.txt").write_text("sedan\nsuv\n")
    (data,) = find(tmp_path)
    assert data.splits == {"train": {"images": "train", "list_file": "train.txt"}}
    assert data.classes == {"count": 3, "names": "classes.txt"}
    assert data.notes == ["train_body.txt is about the same images and is not used"]
    (tmp_path / "train.txt").unlink()
    (data,) = find(tmp_path)
    assert data.classes == {"count": 2, "names": "classes_body.txt"}
    (tmp_path / "train_body.txt").write_text("a b.png 0\nc.png 3\n")  # more classes than either file names
    (data,) = find(tmp_path)
    assert data.classes == {"count": 4}


def test_label_maps_may_add_an_ending_and_go_without_names(tmp_path: Path) -> None:
    write_streets(tmp_path, count=3)
    (tmp_path / "boxes.json").unlink()
    (tmp_path / "list.txt").unlink()
    for file in list((tmp_path / "labels").iterdir()):
        file.rename(file.with_name(f"{file.stem}_mask.png"))
    (data,) = find(tmp_path)
    assert data.splits == {"train": {"images": "images", "labels": "labels", "label_suffix": "_mask"}}
    assert data.classes == {"count": 2}


def write_coco(root: Path, **of_annotation: object) -> None:
    """Images with one annotation each, described by ``of_annotation``, in images/ and described.json."""
    write_images(root / "images", [f"{number}.png" for number in range(4)])
    images = [{"id": number, "file_name": f"{number}.png", "height": 64, "width": 64} for number in range(4)]
    annotations = [{"id": image["id"], "image_id": image["id"], **of_annotation} for image in images]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (root / "described.json").write_text(json.dumps(content))


BOX = {"category_id": 1, "bbox": [8, 8, 16, 16]}
FIVE_CORNERS = [[8, 8, 24, 8, 24, 24, 16, 20, 8, 24]]


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [(FIVE_CORNERS, "coco_instances"), ({"size": [64, 64], "counts": [8, 4088]}, "coco_instances"),
     ([[8, 8, 24, 8, 24, 24, 8, 24]], "coco"), ([], "coco"), (None, "coco")],
)  # fmt: skip
def test_masks_are_more_than_a_box_with_corners(tmp_path: Path, segmentation: object, kind: str) -> None:
    write_coco(tmp_path, **BOX, segmentation=segmentation)
    (data,) = find(tmp_path)
    assert data.kind == kind
    assert data.splits["train"] == {"images": "images", "annotations": "described.json"}


def test_masks_and_sentences_become_tasks(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", **BOX, segmentation=FIVE_CORNERS)
    write_coco(tmp_path / "b", caption="A square on noise.")
    report = write_config(tmp_path, tmp_path / "mine.yml")
    assert "inst: coco_instances, 4 train images of about 64 x 64 px, 4 boxes, 1 classes" in report
    assert "cap: coco_captions, 4 train images of about 64 x 64 px, 4 sentences" in report
    assert "anchors" not in report
    tree = build.load(str(tmp_path / "mine.yml")).tree.data
    assert tree["model"]["heads"]["inst"] == {"type": "yolov7_af"}
    assert tree["tasks"]["cap"]["classes"] == {"captions": ["b/described.json"], "min_count": 1}
    assert tree["sources"]["cap"]["transforms"] == [{"type": "resize", "size": [64, 64]}]


def test_sentences_and_objects_of_the_same_images_are_both_used(tmp_path: Path) -> None:
    write_coco(tmp_path, **BOX)
    (tmp_path / "described.json").rename(tmp_path / "boxes.json")
    write_coco(tmp_path, caption="A square on noise.")
    assert [(data.kind, data.notes) for data in find(tmp_path)] == [("coco", []), ("coco_captions", [])]


def test_images_without_a_label_map_are_left_out(tmp_path: Path) -> None:
    write_streets(tmp_path, count=5)
    (tmp_path / "boxes.json").unlink()
    (tmp_path / "list.txt").unlink()
    for number in (1, 3):
        (tmp_path / "labels" / f"{number}.png").unlink()
    (data,) = find(tmp_path)
    assert data.splits == {"train": {"images": "images", "labels": "labels", "missing_labels": "skip"}}
    assert [file.name for file in data.images["train"]] == ["0.png", "2.png", "4.png"]
    assert data.notes == ["2 images in images have no label map and are left out"]
    write_config(tmp_path, tmp_path / "mine.yml")


def test_a_folder_without_labels_says_what_is_looked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a.png", "b.png"])
    write_images(tmp_path / "masks", ["x.png"])
    with pytest.raises(ValueError, match=r"found 3 images in 2 folders, .* Looked for: COCO json"):
        find(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        find(tmp_path / "nothing")


def test_a_split_is_found_anywhere_in_a_path(tmp_path: Path) -> None:
    names = ["a/instances_train2017.json", "a/instances_val2017.json", "b/Training/x", "b/test/x", "c/valley", "d/val"]
    paths = [tmp_path / name for name in names]
    assert Tree(tmp_path).by_split(paths) == [
        {"train": paths[2], "val": paths[3]},
        {"train": paths[4]},
        {"train": paths[0], "val": paths[1]},
    ]


def test_anchors_are_the_sizes_that_there_are() -> None:
    sizes = np.array([[4, 8], [8, 4], [10, 10], [20, 10], [20, 40], [40, 40], [80, 40], [100, 100], [200, 300]], float)
    boxes = np.repeat(sizes, 7, axis=0)
    anchors = fit_anchors(boxes)
    assert sorted(map(tuple, anchors.round(2).tolist())) == sorted(map(tuple, sizes.tolist()))
    assert (np.diff(anchors.prod(axis=1)) > -1e-3).all()
    assert np.array_equal(anchors, fit_anchors(boxes))
    assert recall(boxes, anchors) == 1.0
    assert recall(np.array([[1.0, 100.0], [10, 10]]), anchors) == 0.5
    with pytest.raises(ValueError, match="9 anchors need"):
        fit_anchors(boxes[:20])


@pytest.mark.parametrize(
    ("share", "size", "shown"),
    [
        (0.1, (720, 1280), (384, 640)),  # 96 px wide: small is enough
        (0.015, (720, 1280), (736, 1280)),  # 14 px at most: as large as they are
        (0.01, (2048, 2048), (1600, 1600)),
        (0.001, (4000, 4000), (2048, 2048)),
        (0.1, (64, 48), (64, 64)),
    ],
)
def test_a_detector_sees_images_as_large_as_its_objects_need(
    share: float, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert detector_size(np.full((5, 2), share), size) == shown
