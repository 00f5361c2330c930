"""A miniature of every format, converted and read back by the project's own readers: exact boxes, classes and pixels."""

from __future__ import annotations

import inspect
import json
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import convert, labels, picture, reader, text

from ppmtl.convert import formats
from ppmtl.convert.cityscapes import CLASSES as CITYSCAPES
from ppmtl.convert.tt100k import FREQUENT
from ppmtl.data.classes import read_class_file
from ppmtl.data.labels import Boxes, ClassIndex, Instances, LabelMap


def boxes(label: object) -> list[list[float]]:
    """Class and corners of every target."""
    assert isinstance(label, (Boxes, Instances))
    return [[index, *box] for index, box in zip(label.classes.tolist(), label.boxes.tolist(), strict=True)]


def test_every_format_is_a_documented_function_whose_flags_have_help() -> None:
    names = formats()
    assert {"bdd100k", "cityscapes", "folders", "labelme", "stanford_cars", "tt100k", "voc", "yolo"} <= set(names)
    for name in names:
        module = __import__(f"ppmtl.convert.{name}", fromlist=["convert"])
        assert "DATA/" in module.__doc__, "a format says its layout"
        parameters = list(inspect.signature(module.convert).parameters.values())
        assert [p.name for p in parameters[:2]] == ["data", "out"]
        hints = typing.get_type_hints(module.convert, include_extras=True)
        for parameter in parameters[2:]:
            assert parameter.kind is parameter.KEYWORD_ONLY
            kind, words = typing.get_args(hints[parameter.name])
            assert kind in (bool, str)
            assert words


# ---- Pascal VOC -----------------------------------------------------------------------------------------------------


def voc_xml(objects: str, name: str = "a.jpg", size: str = "<height>20</height><width>30</width>") -> str:
    return f"<annotation><filename>{name}</filename><size>{size}<depth>3</depth></size>{objects}</annotation>"


def voc_object(name: str, corners: tuple[float, ...], difficult: int = 0, inner: str = "") -> str:
    tags = "".join(f"<{t}>{v}</{t}>" for t, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{inner}<bndbox>{tags}</bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    data = tmp_path / "VOC2012"
    for name in "abc":
        picture(data / f"JPEGImages/{name}.jpg")
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    objects = voc_object("person", (1, 1, 30, 20), inner=part) + voc_object("dog", (11, 6, 20, 10), difficult=1)
    text(data / "Annotations/a.xml", voc_xml(objects))
    text(data / "Annotations/b.xml", voc_xml(voc_object("cat", (2, 3, 2, 3)), "b.jpg"))
    text(data / "Annotations/c.xml", voc_xml("", "c.jpg"))
    text(data / "ImageSets/Main/train.txt", "a\nc\n")
    text(data / "ImageSets/Main/val.txt", "b\n")
    text(data / "ImageSets/Main/person_train.txt", "a  1\nc -1\n")
    text(data / "ImageSets/Segmentation/train.txt", "b\n")
    (data / "SegmentationClass").mkdir()
    indices = np.tile(np.array([0, 20, 255], np.uint8), (20, 10))
    png = Image.fromarray(indices, mode="P")
    png.putpalette([value % 256 for value in range(768)])
    png.save(data / "SegmentationClass/b.png")
    return data


def test_voc_boxes_count_from_one_and_hold_their_last_pixel(voc: Path) -> None:
    out = convert("voc", voc)
    train = reader(out, "det")
    assert train.tasks["det"].names == ("cat", "dog", "person")
    found = labels(train)
    assert list(found) == ["a.jpg", "c.jpg"]
    assert boxes(found["a.jpg"]) == [[2, 0, 0, 30, 20]]
    assert found["a.jpg"].ignored.tolist() == [[10, 5, 20, 10]]  # "difficult"
    assert boxes(found["c.jpg"]) == []
    assert boxes(labels(reader(out, "det", "eval"))["b.jpg"]) == [[0, 1, 2, 2, 3]]  # one pixel


def test_voc_palettes_become_label_maps_of_the_listed_images(voc: Path) -> None:
    found = reader(convert("voc", voc), "seg")
    assert found.tasks["seg"].names[::20] == ("background", "tvmonitor")
    assert "1 images with label maps (2 without one left out)" in found.describe()
    label = labels(found)["b.jpg"]
    assert isinstance(label, LabelMap)
    np.testing.assert_array_equal(label.labels, np.tile(np.array([0, 20, 255], np.uint8), (20, 10)))


def test_voc_label_maps_hold_only_classes_and_images_are_listed_once(voc: Path) -> None:
    text(voc / "ImageSets/Main/val.txt", "b\nb\n")
    with pytest.raises(ValueError, match="2 entries are wrong") as caught:
        convert("voc", voc, "--classes", text(voc.parent / "names.txt", "dog\ncat\n"))
    assert "b.jpg is in split val twice" in str(caught.value)
    assert "b.png: has [20], allowed are 0..2 and 255" in str(caught.value)


def test_voc_files_of_other_tools_count_from_zero(tmp_path: Path) -> None:
    data = tmp_path / "mine"
    picture(data / "images/1.png")
    unknown = "<height>0</height><width>0</width>"
    text(data / "Annotations/1.xml", voc_xml(voc_object("dog", (0, 2.5, 7, 9)), "other.png", unknown))
    with pytest.raises(ValueError, match=r"1\.xml: <object> dog: corner 0, 2\.5: .*--zero_based"):
        convert("voc", data)
    assert boxes(labels(reader(convert("voc", data, "--zero_based"), "det"))["1.png"]) == [[0, 0, 2.5, 7, 9]]


def test_what_is_wrong_in_voc_files_is_named_with_its_field(voc: Path) -> None:
    text(voc / "Annotations/a.xml", voc_xml(voc_object("dog", (1, 1, 5, "x"))))  # type: ignore[arg-type]
    text(voc / "Annotations/b.xml", "<annotation><object>")
    text(voc / "Annotations/c.xml", voc_xml("", "c.jpg", "<height>30</height><width>20</width>"))
    with pytest.raises(ValueError, match="3 entries are wrong, nothing was written") as caught:
        convert("voc", voc)
    message = str(caught.value)
    assert "a.xml: <bndbox> <ymax> must be a number, got 'x'" in message
    assert "b.xml: is no xml" in message
    assert "c.xml: height and width are 30, 20 here" in message
    assert "turned" in message


# ---- YOLO -----------------------------------------------------------------------------------------------------------


def test_yolo_boxes_keep_their_class_numbers_and_images_without_a_file_stay_in(tmp_path: Path) -> None:
    data = tmp_path / "yolo"
    text(
        data / "data.yaml",
        "path: ../elsewhere\ntrain: ../images/train\nval: [images/val]\nnames: {0: car, 1: van, 2: '3'}\n",
    )
    picture(data / "images/train/deep/a.jpg", (100, 200))
    picture(data / "images/train/b.jpg")
    picture(data / "images/val/c.png")
    text(data / "labels/train/deep/a.txt", "2 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4\n")
    out = convert("yolo", data)
    train = reader(out, "det")
    assert train.tasks["det"].names == ("car", "van", "3")
    found = labels(train)
    assert boxes(found["a.jpg"]) == [[2, 75, 25, 125, 75], [0, 0, 0, 40, 40]]
    assert boxes(found["b.jpg"]) == []
    assert list(labels(reader(out, "det", "eval"))) == ["c.png"]


def test_yolo_polygons_become_instances_and_a_list_may_name_images(tmp_path: Path) -> None:
    data = tmp_path / "yolo"
    text(data / "data.yaml", "train: train.txt\nnames: [car, van]\n")
    text(data / "train.txt", "./images/a.jpg\n./images/gone.jpg\n")
    picture(data / "images/a.jpg", (40, 80))
    text(data / "labels/a.txt", "1 0.25 0.5 0.75 0.5 0.75 1\n0 0.5 0.5 0.5 0.5\n")
    label = labels(reader(convert("yolo", data), "ins"))["a.jpg"]
    assert boxes(label) == [[1, 20, 20, 60, 40], [0, 20, 10, 60, 30]]
    assert [None if mask is None else mask[0].tolist() for mask in label.masks] == [
        [[20, 20], [60, 20], [60, 40]],
        None,
    ]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_yolo_shares_are_of_the_image_as_it_is_shown(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = tmp_path / "yolo"
    picture(data / "images/train" / name, (20, 40), exif=exif)
    text(data / "labels/train/a.txt", "0 0.5 0.5 0.5 0.5")
    text(data / "classes.txt", "car\n")
    assert boxes(labels(reader(convert("yolo", data), "det"))[name]) == [[0, 5, 10, 15, 30]]


def test_a_yolo_split_that_is_not_there_is_named_and_a_missing_test_set_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "yolo"
    picture(data / "images/a.jpg")
    text(data / "labels/a.txt", "1 0.5 0.5 0.1 0.1")
    text(data / "data.yaml", "train: images\ntest: test-dev.txt\nnames: {1: person, 7: truck}\n")
    found = reader(convert("yolo", data), "det")
    assert found.tasks["det"].names == ("person", "truck")  # gaps in the numbers are closed
    assert boxes(labels(found)["a.jpg"])[0][0] == 0
    assert "left out: 1 test set that is not there: test-dev.txt" in capsys.readouterr().out
    text(data / "data.yaml", "train: images\nval: images/val\nnames: {1: person}\n")
    with pytest.raises(ValueError, match=r"val: 'images/val' is not there; looked for .*yolo.images.val"):
        convert("yolo", data, "--force")


def test_every_wrong_line_of_yolo_files_is_named_with_its_number(tmp_path: Path) -> None:
    data = tmp_path / "yolo"
    text(data / "data.yaml", "train: images/train\nnames: [car]\n")
    picture(data / "images/train/a.jpg")
    lines = [
        "0 0.5 0.5 0.1 0.1",
        "1 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1 0.1 0.9",
        "0 50 50 10 10",
        "0 nan 0 0 0",
        "x 0 0 0 0",
        "0 0.5 -0.5 0 0",
    ]
    text(data / "labels/train/a.txt", "\n".join(lines))
    with pytest.raises(ValueError, match="6 entries are wrong") as caught:
        convert("yolo", data)
    message = str(caught.value)
    assert "a.txt:2: class '1' is none of the 1 that have a name, 0..0" in message
    assert "a.txt:3: has 6 numbers" in message
    assert "a.txt:4: coordinates must be shares of the image, 0..1, got 10..50" in message
    assert "a.txt:5: number 2 must be a number, got 'nan'" in message
    assert "a.txt:6: class 'x'" in message
    assert "a.txt:7: coordinates must be shares of the image, 0..1, got -0.5..0.5" in message
    text(data / "labels/train/a.txt", "")
    text(data / "data.yaml", "train: images/train\nnames: [car, car]\n")
    with pytest.raises(ValueError, match="class names must be there once, these are repeated: car"):
        convert("yolo", data)
    text(data / "data.yaml", "train: images/train\nnames: [car]\nkpt_shape: [17, 3]\n")
    with pytest.raises(ValueError, match="key points"):
        convert("yolo", data)


# ---- Cityscapes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    data = tmp_path / "cityscapes"
    for split, city in (("train", "aachen"), ("val", "ulm")):
        picture(data / f"leftImg8bit/{split}/{city}/{city}_000000_000019_leftImg8bit.png", (40, 34))
    ids = np.tile(np.arange(34, dtype=np.uint8), (40, 1))
    target = data / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    target.parent.mkdir(parents=True)
    Image.fromarray(ids).save(target)
    text(target.with_name("aachen_000000_000019_gtFine_polygons.json"), "not read where there are ids")
    square = [[0, 0], [9, 0], [9, 9], [0, 9]]
    objects = [
        {"label": "road", "polygon": [[0, 0], [33, 0], [33, 39], [0, 39]]},
        {"label": "cargroup", "polygon": square},
        {"label": "license plate", "polygon": square},
        {"label": "sky", "polygon": square, "deleted": 1},
        {"label": "static", "polygon": [[20, 20], [29, 20], [29, 29], [20, 29]]},
    ]
    content = {"imgHeight": 40, "imgWidth": 34, "objects": objects}
    text(data / "gtFine/val/ulm/ulm_000000_000019_gtFine_polygons.json", json.dumps(content))
    return data


def test_cityscapes_ids_become_train_ids(cityscapes: Path) -> None:
    found = reader(convert("cityscapes", cityscapes), "seg")
    assert found.tasks["seg"].names[:2] == ("road", "sidewalk")
    assert len(found.tasks["seg"]) == 19
    label = labels(found)["aachen_000000_000019_leftImg8bit.png"]
    order = {number: index for index, number in enumerate(CITYSCAPES)}
    assert label.labels[0].tolist() == [order.get(number, 255) for number in range(34)]
    assert (label.labels[0][[7, 13, 19, 26, 33]]).tolist() == [0, 4, 6, 13, 18]  # as its labels.py has them


def test_cityscapes_polygons_are_drawn_where_there_are_no_ids(cityscapes: Path) -> None:
    label = labels(reader(convert("cityscapes", cityscapes), "seg", "eval"))["ulm_000000_000019_leftImg8bit.png"]
    expected = np.zeros((40, 34), np.uint8)
    expected[:10, :10] = 13
    expected[20:30, 20:30] = 255
    np.testing.assert_array_equal(label.labels, expected)


def test_wrong_cityscapes_labels_are_named(cityscapes: Path) -> None:
    file = cityscapes / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.full((40, 34), 99, np.uint8)).save(file)
    wrong = {"imgHeight": 40, "imgWidth": 34, "objects": [{"label": "tree", "polygon": [[0, 0], [1, 1], [1, 0]]}]}
    text(cityscapes / "gtFine/val/ulm/ulm_000000_000019_gtFine_polygons.json", json.dumps(wrong))
    with pytest.raises(ValueError, match=r"labelIds\.png: has id 99(.|\n)*objects\[0\]: label 'tree' is no Cityscapes"):
        convert("cityscapes", cityscapes)


# ---- BDD100K --------------------------------------------------------------------------------------------------------


def bdd_label(
    category: str, box: tuple[float, ...] | None = (1.5, 2, 11.25, 12), **attributes: object
) -> dict[str, object]:
    corners = None if box is None else dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
    return {"id": "7", "category": category, "box2d": corners, "attributes": attributes}


@pytest.mark.parametrize("wrapped", [False, True], ids=["a list of frames", "frames with a config"])
def test_bdd100k_boxes_of_both_releases_have_the_ten_classes(tmp_path: Path, wrapped: bool) -> None:
    data = tmp_path / "bdd100k"
    for name in ("train/a", "train/b", "val/c"):
        picture(data / f"images/100k/{name}.jpg", (72, 128))
    new = [
        bdd_label("pedestrian"),
        bdd_label("other vehicle"),
        bdd_label("rider", crowd=True),
        bdd_label("traffic sign"),
    ]
    frames = [{"name": "a.jpg", "labels": new}, {"name": "b.jpg", "labels": None}, {"name": "gone.jpg", "labels": []}]
    text(data / "labels/det_20/det_train.json", json.dumps({"frames": frames, "config": {}} if wrapped else frames))
    old = [bdd_label("motor"), bdd_label("person"), bdd_label("lane", None)]
    old_file = data / "labels/bdd100k_labels_images_val.json"
    text(old_file, json.dumps([{"name": "c.jpg", "attributes": {}, "timestamp": 1, "labels": old}]))
    out = convert("bdd100k", data)
    found = labels(reader(out, "det"))
    assert boxes(found["a.jpg"]) == [[0, 1.5, 2, 11.25, 12], [9, 1.5, 2, 11.25, 12]]
    assert found["a.jpg"].ignored_classes.tolist() == [2, 1]  # another vehicle, and a crowd of riders
    assert boxes(found["b.jpg"]) == []
    assert [row[0] for row in boxes(labels(reader(out, "det", "eval"))["c.jpg"])] == [6, 0]
    text(old_file, json.dumps([{"name": "c.jpg", "labels": [bdd_label("car", (5, 5, 4, 9))]}]))
    with pytest.raises(ValueError, match=r"val\.json: frame 0: x1, y1, x2, y2 must be left, .*got 5, 5, 4, 9"):
        convert("bdd100k", data, "--force")


# ---- TT100K ---------------------------------------------------------------------------------------------------------


def tt100k(folder: Path) -> Path:
    def sign(name: str, *corners: float) -> dict[str, object]:
        return {
            "category": name,
            "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)),
            "polygon": [],
        }

    signs = [sign("pl80", 1.25, 2.5, 20.5, 19), sign("wc", 3, 3, 9, 9)]
    images = {
        "10": {"id": 10, "path": "train/10.jpg", "objects": signs},
        "11": {"id": 11, "path": "test/11.jpg", "objects": [sign("i2", 0, 0, 8, 8)]},
        "12": {"id": 12, "path": "other/12.jpg", "objects": []},
    }
    text(folder / "annotations.json", json.dumps({"types": ["i2", "pl80", "wc"], "imgs": images}))
    for entry in images.values():
        picture(folder / str(entry["path"]))
    return folder


def test_tt100k_splits_are_the_folders_of_its_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = convert("tt100k", tt100k(tmp_path / "data"))
    train = reader(out, "det")
    assert train.tasks["det"].names == ("i2", "pl80", "wc")
    assert boxes(labels(train)["10.jpg"]) == [[1, 1.25, 2.5, 20.5, 19], [2, 3, 3, 9, 9]]
    assert boxes(labels(reader(out, "det", "eval"))["11.jpg"]) == [[0, 0, 0, 8, 8]]
    assert (out / "det_other.json").is_file()
    assert "left out" not in capsys.readouterr().out


def test_tt100k_has_45_frequent_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = (
        "i2,i4,i5,il100,il60,il80,io,ip,p10,p11,p12,p19,p23,p26,p27,p3,p5,p6,pg,ph4,ph4.5,ph5,pl100,pl120,pl20,pl30,pl40,"
        "pl5,pl50,pl60,pl70,pl80,pm20,pm30,pm55,pn,pne,po,pr40,w13,w32,w55,w57,w59,wo"
    )
    assert ",".join(FREQUENT) == published
    assert len(set(FREQUENT)) == 45
    train = reader(convert("tt100k", tt100k(tmp_path / "data"), "--frequent"), "det")
    assert train.tasks["det"].names == FREQUENT
    assert boxes(labels(train)["10.jpg"]) == [[FREQUENT.index("pl80"), 1.25, 2.5, 20.5, 19]]
    assert "left out: 1 objects of other classes (det, train)" in capsys.readouterr().out


# ---- Stanford Cars --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_stanford_cars_classes_count_from_zero(tmp_path: Path, count: int) -> None:
    io = pytest.importorskip("scipy.io", reason="scipy reads .mat files")
    data = tmp_path / "cars"
    names = np.empty((1, 3), object)
    names[0] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]
    kind = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    rows = [(39, 116, 569, 375, 3, "00001.jpg"), (36, 116, 868, 587, 1, "00002.jpg")][:count]
    (data / "devkit").mkdir(parents=True)
    io.savemat(data / "devkit/cars_meta.mat", {"class_names": names})
    io.savemat(data / "devkit/cars_train_annos.mat", {"annotations": np.array([rows], dtype=kind)})
    io.savemat(data / "cars_test_annos_withlabels.mat", {"annotations": np.array([rows[:1]], dtype=kind)})
    for name in ("cars_train/00001", "cars_train/00002", "cars_test/00001"):
        picture(data / f"{name}.jpg")
    out = convert("stanford_cars", data)
    train = reader(out, "cls")
    assert train.tasks["cls"].names == tuple(names[0])
    expected = {"00001.jpg": ClassIndex(2), "00002.jpg": ClassIndex(0)}
    assert labels(train) == dict(list(expected.items())[:count])
    assert labels(reader(out, "cls", "eval")) == {"00001.jpg": ClassIndex(2)}
    rows[0] = (*rows[0][:4], 4, "00001.jpg")
    io.savemat(data / "devkit/cars_train_annos.mat", {"annotations": np.array([rows], dtype=kind)})
    with pytest.raises(ValueError, match=r"cars_train_annos\.mat: annotations\(1\): class must be 1\.\.3 .*got 4"):
        convert("stanford_cars", data, "--force")
    text(data / "devkit/cars_meta.mat", "<html>404</html>")
    with pytest.raises(ValueError, match=r"cars_meta\.mat: is no MATLAB file"):
        convert("stanford_cars", data, "--force")


# ---- LabelMe --------------------------------------------------------------------------------------------------------


def shape(label: str, points: list[list[float]], kind: str = "polygon", group: int | None = None) -> dict[str, object]:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


@pytest.fixture
def labelme(tmp_path: Path) -> Path:
    data = tmp_path / "labelme"
    picture(data / "imgs/a.jpg")
    shapes = [
        shape("wall", [[0, 0], [10, 0], [10, 10], [0, 10]], group=1),
        shape("door", [[8, 12], [4, 4]], "rectangle"),
        shape("wall", [[20, 0], [30, 0], [30, 5]], group=1),
        shape("door", [[1, 1], [2, 2]], "line"),
        shape("__ignore__", [[0, 18], [30, 18], [30, 20], [0, 20]]),
    ]
    content = {
        "version": "5.5.0",
        "shapes": shapes,
        "imagePath": "..\\imgs\\a.jpg",
        "imageHeight": 20,
        "imageWidth": 30,
    }
    text(data / "json/a.json", json.dumps(content))
    text(data / "settings.json", "{}")
    return data


def test_labelme_groups_are_one_object_of_several_polygons(labelme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reader(convert("labelme", labelme), "ins")
    assert found.tasks["ins"].names == ("door", "wall")
    label = labels(found)["a.jpg"]
    assert boxes(label) == [[1, 0, 0, 30, 10], [0, 4, 4, 8, 12]]
    assert [ring.tolist() for ring in label.masks[0]] == [
        [[0, 0], [10, 0], [10, 10], [0, 10]],
        [[20, 0], [30, 0], [30, 5]],
    ]
    assert label.masks[1][0].tolist() == [[4, 4], [8, 4], [8, 12], [4, 12]]
    shown = capsys.readouterr().out
    assert "left out: 1 shapes of type line" in shown
    assert "left out: 1 objects of other classes (ins, all)" in shown
    assert "left out: 1 json files without 'shapes'" in shown


@pytest.mark.parametrize("background", [(), ("--background", "floor")])
def test_labelme_label_maps_show_the_later_object(labelme: Path, background: tuple[str, ...]) -> None:
    label = labels(reader(convert("labelme", labelme, "--label_maps", *background), "seg"))["a.jpg"]
    first = len(background) // 2
    expected = np.full((20, 30), 0 if background else 255, np.uint8)
    expected[:10, :10] = first + 1
    for row in range(5):
        expected[row, 20 + 2 * row + 1 :] = first + 1  # the triangle: pixels whose centre it covers
    expected[4:12, 4:8] = first
    expected[18:] = 255
    np.testing.assert_array_equal(label.labels, expected)


def test_labelme_label_maps_are_drawn_in_the_order_of_the_file_even_within_a_group(labelme: Path) -> None:
    content = json.loads((labelme / "json/a.json").read_text())
    rows = [shape("wall", [[0, 0], [30, 4]], "rectangle", 1), shape("door", [[0, 0], [30, 20]], "rectangle")]
    rows.append(shape("wall", [[0, 16], [30, 20]], "rectangle", 1))
    text(labelme / "json/a.json", json.dumps(content | {"shapes": rows}))
    label = labels(reader(convert("labelme", labelme, "--label_maps"), "seg"))["a.jpg"]
    assert label.labels[:, 0].tolist() == [0] * 16 + [1] * 4


def test_wrong_labelme_files_are_named_with_their_field(labelme: Path) -> None:
    content = json.loads((labelme / "json/a.json").read_text())
    text(labelme / "json/a.json", json.dumps(content | {"shapes": [shape("wall", [[0, 0, 0]])]}))
    text(labelme / "json/b.json", json.dumps(content | {"imageHeight": 99}))
    text(labelme / "json/c.json", json.dumps({"shapes": []}))
    with pytest.raises(ValueError, match="3 entries are wrong") as caught:
        convert("labelme", labelme)
    assert "a.json: shapes[0].points must be a list of points [x, y], got [[0, 0, 0]]" in str(caught.value)
    assert "b.json: height and width are 99, 30 here" in str(caught.value)
    assert "c.json: 'imagePath' must be text, got nothing" in str(caught.value)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_folders_of_all_splits_share_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "signs"
    for name in (
        "train/50 km per h/a.jpg",
        "train/30 km per h/x y.JPG",
        "val/50 km per h/b.png",
        "val/70 km per h/c.jpg",
    ):
        picture(data / name)
    text(data / "train/30 km per h/notes.txt", "")
    out = convert("folders", data)
    train = reader(out, "cls")
    assert train.tasks["cls"].names == ("30 km per h", "50 km per h", "70 km per h")
    assert labels(train) == {"a.jpg": ClassIndex(1), "x y.JPG": ClassIndex(0)}
    assert labels(reader(out, "cls", "eval")) == {"b.png": ClassIndex(1), "c.jpg": ClassIndex(2)}
    assert "left out: 1 files in train/30 km per h that are no images" in capsys.readouterr().out
    assert len(read_class_file(out / "cls_classes.txt")) == 3
