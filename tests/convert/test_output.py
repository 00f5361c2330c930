"""What is written appears whole or not at all, replaces nothing by accident, and stands alone where it is asked to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from written import convert, labels, picture, reader, text

from ppmtl.data.labels import ClassIndex


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("train/cat/a.jpg", "train/dog/b.jpg", "val/dog/c.jpg"):
        picture(tmp_path / "pets" / name)
    return tmp_path / "pets"


def test_nothing_is_replaced_without_force_and_nothing_foreign_with_it(data: Path) -> None:
    out = convert("folders", data)
    with pytest.raises(ValueError, match=r"pets_converted: exists already \(--force replaces it\)"):
        convert("folders", data)
    text(out / "cls_old.txt", "of another run")
    convert("folders", data, "--force")
    assert not (out / "cls_old.txt").exists()
    (out / "config.yml").unlink()
    with pytest.raises(ValueError, match=r"has no config\.yml, so this tool did not write it"):
        convert("folders", data, "--force")


def test_a_failed_conversion_leaves_the_old_folder_and_nothing_else(data: Path) -> None:
    out = convert("folders", data)
    before = (out / "cls_train.txt").read_text()
    shutil.rmtree(data / "train")
    shutil.rmtree(data / "val")
    with pytest.raises(ValueError, match="holds nothing in this format"):
        convert("folders", data, "--force")
    assert (out / "cls_train.txt").read_text() == before
    assert sorted(path.name for path in data.parent.iterdir()) == ["pets", "pets_converted"]


def test_the_folder_to_write_must_not_lie_in_the_data(data: Path) -> None:
    for wrong in (data / "new", data.parent):
        with pytest.raises(ValueError, match="must lie beside"):
            convert("folders", data, "--out", wrong)
    with pytest.raises(ValueError, match="no such folder"):
        convert("folders", data / "none")


def test_copied_images_need_the_old_folder_no_more(data: Path, tmp_path: Path) -> None:
    convert("folders", data, "--copy", "--out", tmp_path / "elsewhere/new")
    shutil.rmtree(data)
    assert labels(reader(tmp_path / "elsewhere/new", "cls")) == {"a.jpg": ClassIndex(0), "b.jpg": ClassIndex(1)}


def test_a_class_file_chooses_and_orders_the_classes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = text(data.parent / "names.txt", "dog\nbird\n")
    train = reader(convert("folders", data, "--classes", names), "cls")
    assert train.tasks["cls"].names == ("dog", "bird")
    assert labels(train) == {"b.jpg": ClassIndex(0)}
    assert "left out: 1 images of other classes (cls, train)" in capsys.readouterr().out


def test_images_that_are_not_there_are_counted_and_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "yolo"
    text(data / "data.yaml", "train: list.txt\nnames: [car]\n")
    text(data / "list.txt", "images/a.jpg\nimages/b.jpg\nimages/c.jpg\n")
    with pytest.raises(ValueError, match=r"holds nothing in this format; 3 images are not there, such as .*a\.jpg"):
        convert("yolo", data)
    picture(data / "images/b.jpg")
    convert("yolo", data)
    assert "left out: 2 images that are not there, such as" in capsys.readouterr().out


def test_images_without_a_single_object_need_a_class_file(tmp_path: Path) -> None:
    data = tmp_path / "voc"
    picture(data / "JPEGImages/a.jpg")
    text(data / "Annotations/a.xml", "<annotation><filename>a.jpg</filename></annotation>")
    with pytest.raises(ValueError, match="no image has an object for det, so there are no classes; give --classes"):
        convert("voc", data)
    train = reader(convert("voc", data, "--classes", text(tmp_path / "names.txt", "dog\n")), "det")
    assert "1 images (1 without objects)" in train.describe()


def test_an_image_that_is_none_stops_before_anything_is_written(tmp_path: Path) -> None:
    data = tmp_path / "yolo"
    text(data / "data.yaml", "train: images\nnames: [car]\n")
    text(data / "images/a.jpg", "no image")
    with pytest.raises(ValueError, match=r"a\.jpg: is no image"):
        convert("yolo", data)
    assert not (tmp_path / "yolo_converted").exists()
