"""COCO instances and captions: every form of mask, every wrong entry named, a vocabulary that stays with the run."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as api

from ppmtl import build
from ppmtl.config.settings import ClassSettings, TaskSettings
from ppmtl.data.classes import read_vocabulary
from ppmtl.data.labels import Captions, Instances
from ppmtl.data.readers.coco_captions import COCOCaptions
from ppmtl.data.readers.coco_instances import COCOInstances
from ppmtl.ops.masks import Rle, draw_mask
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.captions import Captions as CaptionTask

SIZE = (20, 30)
GAPS = ClassList(("cat", "dog"), (90, 3))
BAR = np.zeros(SIZE, np.uint8)
BAR[2:6, 3:11] = 1
COUNTS = Rle.of(BAR).counts.tolist()


def dataset(root: Path, annotations: list[Any]) -> Path:
    (root / "images").mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / f"images/{name}.jpg")
    images = [{"id": i, "file_name": f"{n}.jpg", "height": 20, "width": 30} for i, n in ((7, "a"), (2, "b"))]
    (root / "set.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


# ---- instances ----------------------------------------------------------------------------------


def thing(segmentation: Any, **extra: Any) -> dict[str, Any]:
    given = {"image_id": 7, "category_id": 3, "bbox": [3, 2, 8, 4], "segmentation": segmentation}
    return given | extra


def instances(root: Path) -> COCOInstances:
    return COCOInstances(root, {"ins": GAPS}, images="images", annotations="set.json")


def label_of(sample: Sample) -> Instances:
    label = sample.labels["ins"]
    assert isinstance(label, Instances)
    return label


COMPRESSED = api.encode(np.asfortranarray(BAR))["counts"].decode()
FORMS = {
    "polygon": [[3, 2, 11, 2, 11, 6, 3, 6]],
    "two polygons": [[3, 2, 7, 2, 7, 6, 3, 6], [7, 2, 11, 2, 11, 6, 7, 6]],
    "run lengths": {"size": [20, 30], "counts": COUNTS},
    "compressed run lengths": {"size": [20, 30], "counts": COMPRESSED},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask_is_read(tmp_path: Path, form: str) -> None:
    reader = instances(dataset(tmp_path, [thing(FORMS[form])]))
    (mask,) = label_of(reader[0]).masks
    assert mask is not None
    np.testing.assert_array_equal(draw_mask(mask, SIZE), BAR)
    assert "1 masks" in reader.describe()


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_an_object_without_a_mask_is_one_with_a_box_only(tmp_path: Path, nothing: Any) -> None:
    label = label_of(instances(dataset(tmp_path, [thing(nothing)]))[0])
    assert (label.boxes.tolist(), label.masks, label.classes.tolist()) == ([[3, 2, 11, 6]], (None,), [1])


def test_crowds_are_kept_apart_with_their_masks(tmp_path: Path) -> None:
    entries = [thing(FORMS["run lengths"], iscrowd=1), thing(FORMS["polygon"], category_id=90)]
    label = label_of(instances(dataset(tmp_path, entries))[0])
    assert (label.classes.tolist(), label.ignored_classes.tolist()) == ([0], [1])
    assert isinstance(label.masks[0], tuple)
    assert isinstance(label.ignored_masks[0], Rle)


def test_a_dropped_box_takes_its_mask_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        label = label_of(instances(dataset(tmp_path, [thing(FORMS["polygon"], bbox=[3, 2, 0, 4]), thing([])]))[0])
    assert label.masks == (None,)
    assert "1 boxes dropped" in caplog.text


WRONG: dict[str, tuple[Any, str]] = {
    "two points": ([[1, 2, 3, 4]], r"three or more points, got \[1, 2, 3, 4\]"),
    "an odd number": ([[1, 2, 3, 4, 5, 6, 7]], "three or more points"),
    "not finite": ([[1, 2, 3, 4, 5, float("nan")]], "three or more points"),
    "text": ("3 2 11 2", "must be a list of polygons, or run lengths"),
    "another size": (
        {"size": [30, 20], "counts": COUNTS},
        r"for \[height, width\] \[30, 20\], the image has \[20, 30\]",
    ),
    "too short": ({"size": [20, 30], "counts": COUNTS[:-1]}, "must add up to 20 x 30 pixels"),
    "negative": ({"size": [20, 30], "counts": [-1, 601]}, "whole numbers"),
    "far too large": ({"size": [20, 30], "counts": [10**30]}, "whole numbers"),
    "cut off": ({"size": [20, 30], "counts": COMPRESSED[:-1]}, "must add up to|cut off"),
    "no such text": ({"size": [20, 30], "counts": "\u00e9"}, "short numbers in characters '0' to 'o'"),
    "endless text": ({"size": [20, 30], "counts": "o" * 100}, "short numbers in characters"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_masks_are_named(tmp_path: Path, wrong: str) -> None:
    segmentation, complaint = WRONG[wrong]
    with pytest.raises(
        ValueError, match=rf"1 wrong entries.*\n.*annotations\[1\]: segmentation \(a\.jpg\): .*({complaint})"
    ):
        instances(dataset(tmp_path, [thing(FORMS["polygon"]), thing(segmentation)]))


def test_dangling_ids_are_named(tmp_path: Path) -> None:
    entries = [thing([], image_id=99), thing([], category_id=4)]
    with pytest.raises(ValueError, match=r"2 wrong entries") as caught:
        instances(dataset(tmp_path, entries))
    assert "image_id 99 is not in 'images'" in str(caught.value)
    assert "category_id 4 (a.jpg) is not in the class list" in str(caught.value)


def test_a_mask_that_reaches_beyond_its_box_is_remarked_on_one_that_leaves_room_is_not(tmp_path: Path) -> None:
    boxes = {"fits": [3, 2, 8, 4], "loose": [0, 0, 20, 15], "rounded": [3.6, 2.9, 7, 3], "narrow": [3, 2, 6, 4]}
    entries = [thing(FORMS[form], bbox=box) for form in ("polygon", "run lengths") for box in boxes.values()]
    remarks = [r for r in instances(dataset(tmp_path, entries)).remarks if r.kind == "mask_outside_box"]
    assert [r.place.rpartition(": ")[2] for r in remarks] == ["annotations[3] (a.jpg)", "annotations[7] (a.jpg)"]
    assert "covers x 3 to 11, y 2 to 6" in remarks[0].problem


# ---- captions -----------------------------------------------------------------------------------

WORDS = ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "dog"))


def captions(root: Path) -> COCOCaptions:
    return COCOCaptions(root, {"cap": WORDS}, images="images", annotations="set.json")


def test_captions_are_read_by_image_in_the_files_order_and_an_image_without_any_has_no_label(tmp_path: Path) -> None:
    entries = [{"image_id": 7, "caption": "A dog."}, {"image_id": 7, "caption": "Two dogs, maybe"}]
    reader = captions(dataset(tmp_path, entries))
    assert reader[0].labels == {"cap": Captions(("A dog.", "Two dogs, maybe"))}
    assert reader[1].labels == {}
    assert reader.describe() == "set.json: 2 images (1 without captions), 2 captions"


def test_words_that_the_vocabulary_cannot_write_are_remarked_on_the_most_frequent_first(tmp_path: Path) -> None:
    texts = ["A zebra and a dog", "two zebra", "a dog."]
    root = dataset(tmp_path, [{"image_id": 7, "caption": text} for text in texts])
    remarks = captions(root).remarks
    assert [r.problem.split(" is ")[0] for r in remarks] == ["'zebra' (2 x)", "'and' (1 x)", "'two' (1 x)"]
    assert {(r.severity, r.kind) for r in remarks} == {("note", "unknown_word")}
    pieces = ClassList((*WORDS.names, "z", "##ebra", "and", "two"))
    assert COCOCaptions(root, {"cap": pieces}, images="images", annotations="set.json").remarks == []


def test_wrong_captions_are_named_all_at_once(tmp_path: Path) -> None:
    texts = [{"image_id": 7, "caption": " ."}, {"image_id": 7}]
    entries = [*texts, {"image_id": [9], "caption": "a dog"}, 5, {"image_id": 3, "caption": "x"}]
    with pytest.raises(ValueError, match=r"set\.json: 5 wrong entries") as caught:
        captions(dataset(tmp_path, entries))
    for part in ("annotations[0]: needs a text 'caption' with at least one word, got ' .'", "annotations[1]", "image_id [9]",
                 "annotations[3]", "annotations[4]: image_id 3 is not in 'images'"):  # fmt: skip
        assert part in str(caught.value)


def test_a_vocabulary_has_the_frequent_words_of_all_files_most_frequent_first(tmp_path: Path) -> None:
    for name, texts in (("x", ["A dog.", "a dog runs"]), ("y", ["A man's dog, a CAT", "the dog"])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"annotations": [{"caption": text} for text in texts]}))
    files = [tmp_path / "x.json", tmp_path / "y.json"]
    assert read_vocabulary(files, 2).names == ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "dog")
    assert read_vocabulary(files, 1).names[4:] == ("a", "dog", "'s", "cat", "man", "runs", "the")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{}", "no 'annotations' list"),
        ('{"annotations": []}', "no 'annotations' list"),
        ('{"annotations": [{"caption": 3}]}', "1 annotations are no captions"),
    ],
)
def test_files_without_captions_give_no_vocabulary(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=rf"x\.json: .*{complaint}"):
        read_vocabulary([tmp_path / "x.json"], 1)


def test_the_vocabulary_is_stored_with_the_run_and_its_captions_are_not_needed_again(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"annotations": [{"caption": "a dog"}]}))
    demo = Path(__file__).resolve().parents[2] / "configs" / "allinone_demo.yml"
    run = build.load(str(demo), [f"data_root={tmp_path}"])
    asked = TaskSettings(partial(CaptionTask, max_length=9), ClassSettings(captions=("x.json",), min_count=1))
    settings = replace(run.settings, tasks={"cap": asked}, sources={})
    built = build.build_tasks(settings)["cap"]
    assert built.classes.names == ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "dog")
    stored = json.loads(json.dumps(build.describe(run, {"cap": built})["classes"]))
    (tmp_path / "x.json").unlink()
    assert build.build_tasks(settings, stored)["cap"].classes == built.classes
    assert build.missing_paths(settings, training=False, evaluation=False) == []
    assert build.missing_paths(settings, training=True, evaluation=False) == [tmp_path / "x.json"]


def test_a_finished_vocabulary_and_captions_to_build_one_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        ClassSettings(names="vocab.txt", captions=("x.json",))
