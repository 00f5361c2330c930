"""Which images are predicted, what is said about the others, and where results go."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppmtl.predict.files import predict_files
from ppmtl.predict.inputs import find_inputs, read_inputs, result_names
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification, ClassProbs


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for name in ("b.png", "a.TIF", "sub/a.png", "sub/deep/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(Path(name).suffix.lower(), np.full((40, 40, 3), 99, np.uint8))[1].tofile(folder / name)
    (folder / "notes.txt").write_text("")
    (folder / "film.gif").write_bytes(b"")
    return folder


def below(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_what_is_not_read_of_a_folder_is_counted_and_named(images, capsys):
    assert below(images, find_inputs(images)) == ["a.TIF", "b.png"]
    said = capsys.readouterr().err
    assert (
        "2 images; not read: 1 sub-folder: sub (--recursive reads them), 2 files: film.gif, notes.txt (read are" in said
    )


def test_a_folder_of_images_only_is_read_without_a_word(images, capsys):
    assert below(images, find_inputs(images / "sub" / "deep")) == ["sub/deep/a.png"]
    assert capsys.readouterr().err == ""


def test_recursive_reads_sub_folders_but_no_links_and_no_earlier_results(images, capsys):
    (images / "link").symlink_to(images / "sub")
    found = find_inputs(images, recursive=True, leave_out=images / "sub" / "deep")
    assert below(images, found) == ["a.TIF", "b.png", "sub/a.png"]
    assert "2 sub-folders: link, sub/deep (links and the output folder are left out)" in capsys.readouterr().err


def test_a_folder_without_images_says_what_it_holds(images):
    for path in images.glob("*.[pT]*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"holds no image; not read: 1 sub-folder: sub .*notes\.txt"):
        find_inputs(images)
    with pytest.raises(ValueError, match="no such folder"):
        find_inputs(images / "gone")


def test_a_list_is_read_from_its_own_folder_or_the_one_given(images):
    listed = images / "list.txt"
    listed.write_text("\ufeffsub/a.png\n\n  b.png \n", encoding="utf-8")
    assert below(images, read_inputs(listed)) == ["sub/a.png", "b.png"]
    assert read_inputs(listed, Path("elsewhere")) == [Path("elsewhere/sub/a.png"), Path("elsewhere/b.png")]
    listed.write_text("\n")
    with pytest.raises(ValueError, match="lists no image"):
        read_inputs(listed)


def test_no_two_images_write_the_same_results(tmp_path):
    paths = [tmp_path / name for name in ("x/a.jpg", "x/a.png", "x/b.jpg", "y/a.jpg")]
    assert [result_names(paths)[path].as_posix() for path in paths] == ["x/a.jpg", "x/a.png", "x/b", "y/a"]
    assert result_names(paths[2:3]) == {paths[2]: Path("b")}
    assert result_names([]) == {}


class Picky:
    """A pipeline whose network takes images of 32 px and more."""

    batch_size, tasks = 3, {"t": Classification("t", ClassList(("dark", "light"), (0, 1)))}

    def views(self, _):
        return {"view": ("t",)}

    def predict(self, images, _):
        for image in images:
            if min(image.shape[:2]) < 32:
                raise ValueError("both sides must be at least 32 px")
        light = [image.mean() / 255 for image in images]
        return [{"t": ClassProbs(np.array([1 - share, share], np.float32))} for share in light]


def test_an_impossible_image_is_named_and_the_others_go_on(images, tmp_path, capsys):
    cv2.imwrite(str(images / "sub" / "tiny.png"), np.zeros((1, 1, 3), np.uint8))
    (images / "sub" / "torn.png").write_bytes(b"\x89PNG")
    paths = [*find_inputs(images, recursive=True), images / "gone.png"]
    failed = predict_files(paths, Picky(), tmp_path / "out", threshold=0.5)
    assert failed == 3
    captured = capsys.readouterr()
    for name, why in (("sub/tiny.png", "at least 32 px"), ("sub/torn.png", "damaged"), ("gone.png", "cannot be read")):
        assert [line for line in captured.err.splitlines() if f"skipped: {images / name}" in line and why in line], name
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.json"))
    assert written == ["a.json", "b.json", "predictions/info.json", "sub/a.json", "sub/deep/a.json"]
    assert json.loads((tmp_path / "out/sub/a.json").read_text())["t"]["top"][1]["score"] == round(99 / 255, 5)
    assert "4 of 7 images written" in captured.out


def test_results_never_replace_the_images_of_a_sub_folder(images):
    with pytest.raises(ValueError, match="would be overwritten"):
        predict_files(find_inputs(images, recursive=True), Picky(), images, threshold=0.5)
