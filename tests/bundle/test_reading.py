"""Reading bundles: the tasks are those of the training, and whatever is wrong is said before an engine starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from folders import write_folder

from ppmtl.bundle.reading import read_bundle
from ppmtl.config import ConfigError
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import Segmentation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "small")


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "infer_cfg.yml"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_a_bundle_of_the_field_with_numbered_features_is_read(folder: Path) -> None:
    """``folders.document`` is what exports wrote before features had names and classes lay in their tasks."""
    bundle = read_bundle(folder)
    assert bundle.settings.trunk.outputs == ("feature_0", "feature_1")
    assert bundle.settings.heads["seg"].inputs == ("feature_0", "feature_1", "image_size")
    seg, cls, det = bundle.tasks.values()
    assert [type(task) for task in (seg, cls, det)] == [Segmentation, Classification, Detection]
    assert (seg.average, cls.long_side, cls.tta.scales, det.nms_iou) == ("logits", 64, (1.0, 1.5), 0.5)
    assert (det.classes.names, det.classes.ids) == (("stop", "give way"), (4, 9))
    assert bundle.shared_size == (64, 96)
    assert bundle.files("head_cls") == (folder / "head_cls.pdmodel", folder / "head_cls.pdiparams")
    change(folder, "size: [64, 96]", "size: null")
    assert read_bundle(folder).shared_size == "first"
    assert [bundle.shown_at(per_task_size=own) for own in (True, False)] == [None, (64, 96)]


def test_a_bundle_exported_for_one_size_shows_all_tasks_that(tmp_path: Path) -> None:
    bundle = read_bundle(write_folder(tmp_path / "fixed", input={"size": [32, 48]}))
    assert [bundle.shown_at(per_task_size=own) for own in (True, False)] == [(32, 48), (32, 48)]


def test_chosen_tasks_come_in_the_files_order_and_files_of_the_others_need_not_be_there(folder: Path) -> None:
    for file in folder.glob("head_cls*"):
        file.unlink()
    assert list(read_bundle(folder, ["det", "seg"]).tasks) == ["seg", "det"]
    with pytest.raises(ValueError, match=r"head_cls\.pdmodel: is missing from the bundle"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["sgm", "det"], r"small has no task 'sgm'; did you mean 'seg'\? allowed: seg, cls, det"),
        ([], "no task was chosen; .* has seg, cls, det"),
    ],
)
def test_an_unknown_task_is_refused_with_the_known_ones(folder: Path, wrong: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_bundle(folder, wrong)


def test_a_folder_that_is_no_bundle_is_said_with_the_bundles_near_it(folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"no such folder; did you mean '{folder}'"):
        read_bundle(folder.with_name("smal"))
    with pytest.raises(ConfigError, match=r"it has no infer_cfg.yml; bundles lie inside it: small"):
        read_bundle(folder.parent)


def test_a_file_that_was_cut_off_or_changed_is_named(folder: Path) -> None:
    file = folder / "trunk.pdiparams"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"trunk\.pdiparams: has 14 bytes, the export wrote 15"):
        read_bundle(folder, ["cls"])
    file.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ValueError, match=r"trunk\.pdiparams: its content differs"):
        read_bundle(folder, ["cls"])


def test_a_newer_format_is_one_message_whatever_else_is_new(folder: Path) -> None:
    change(folder, "format: 1\n", "format: 2\nnew_key: 3\n")
    with pytest.raises(ConfigError, match="format 2 is newer than this version reads") as caught:
        read_bundle(folder)
    assert len(caught.value.problems) == 1


def test_all_mistakes_of_the_settings_are_listed_with_file_and_line(folder: Path) -> None:
    change(folder, "nms_iou: 0.5", "nms_iu: 0.5")
    change(folder, "draw_threshold: 0.4", "draw_threshold: high")
    with pytest.raises(ConfigError) as caught:
        read_bundle(folder)
    assert len(caught.value.problems) == 2
    assert re.search(r"tasks\.det\.nms_iu \(.*infer_cfg\.yml:\d+\): unknown key 'nms_iu'; did you mean 'nms_iou'",
                     str(caught.value))  # fmt: skip
    assert "infer.draw_threshold" in str(caught.value)


def test_a_bundle_cannot_name_files_outside_of_it(folder: Path) -> None:
    file = folder / "infer_cfg.yml"
    file.write_text(file.read_text().replace("trunk", "../trunk").replace("../trunk:", "trunk:"))
    with pytest.raises(ConfigError, match=r"files must lie in the bundle itself, got \['../trunk.pdmodel'"):
        read_bundle(folder)


def test_a_bundle_cannot_name_another_callable_as_a_task(folder: Path) -> None:
    change(folder, "type: segmentation\n    average: logits", "type: subprocess.Popen")
    with pytest.raises(ConfigError, match=r"tasks\.seg\.type: .*Popen.* is no task"):
        read_bundle(folder)
