"""Persons, 27 semantic groups and captions of real photographs, whose label sets differ. Skipped without the data set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppmtl.data import transforms as T
from ppmtl.data.classes import read_class_file, read_vocabulary
from ppmtl.data.readers.coco_captions import COCOCaptions
from ppmtl.data.readers.coco_instances import COCOInstances
from ppmtl.data.readers.joined import Joined
from ppmtl.data.readers.label_png import LabelPNG
from ppmtl.data.source import Source, SourceView
from ppmtl.ops.masks import draw_mask
from ppmtl.structures import ClassList
from ppmtl.tasks.captions import Captions
from ppmtl.tasks.instances import Instances
from ppmtl.tasks.segmentation import Segmentation

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PPMTL_COCO_MINI", ROOT.parent / "shared" / "data" / "coco_mini"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the coco_mini data set: set PPMTL_COCO_MINI to its folder")


def groups() -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for entry in json.loads((DATA / "annotations/semantic_classes.json").read_text())["classes"]:
        found.setdefault(entry["supercategory"], []).append(entry["index"])
    return {name: tuple(numbers) for name, numbers in sorted(found.items())}


@pytest.fixture(scope="module")
def classes() -> dict[str, ClassList]:
    files = [DATA / "annotations/captions_train.json", DATA / "flickr/captions_train.json"]
    return {
        "ins": read_class_file(DATA / "annotations/person_masks_train.json"),
        "sem": ClassList(tuple(groups())),
        "cap": read_vocabulary(files, 5),
    }


def readers(split: str) -> dict[str, Any]:
    def of(reader: Any, **settings: Any) -> Any:
        return lambda root, tasks: reader(root, tasks, images=f"images/{split}", **settings)

    return {
        "ins": of(COCOInstances, annotations=f"annotations/person_masks_{split}.json"),
        "sem": of(LabelPNG, labels=f"annotations/semantic_{split}", missing_labels="skip", values=groups()),
        "cap": of(COCOCaptions, annotations=f"annotations/captions_{split}.json"),
    }


@pytest.fixture(scope="module")
def train(classes: dict[str, ClassList]) -> Joined:
    return Joined(DATA, classes, readers=readers("train"), images="all")


def test_the_numbers_of_images_and_labels_are_those_of_the_table(classes: dict[str, ClassList], train: Joined) -> None:
    rows = (DATA / "annotations/tasks_train.csv").read_text().splitlines()
    names = rows[0].split(",")
    table = [dict(zip(names, row.split(","), strict=True)) for row in rows[1:]]
    for task, column in (("ins", "person_masks"), ("sem", "semantic"), ("cap", "captions")):
        (root, of_task) = (DATA, {task: classes[task]})
        assert len(readers("train")[task](root, of_task)) == sum(row[column] == "1" for row in table)
    labelled = sum(any(row[c] == "1" for c in ("person_masks", "semantic", "captions")) for row in table)
    assert len(train) == labelled


def test_the_vocabulary_covers_most_words(classes: dict[str, ClassList]) -> None:
    assert len(classes["cap"]) == 2371
    captions = COCOCaptions(DATA, {"cap": classes["cap"]}, images="flickr/val", annotations="flickr/captions_val.json")
    task = Captions("cap", classes["cap"], captions_per_image=5)
    tokens = task.collate([captions[index] for index in range(0, 400, 20)])["tokens"]
    assert (tokens == 1).sum() < 0.08 * (tokens > 3).sum()


def test_boxes_and_masks_of_persons_agree(classes: dict[str, ClassList]) -> None:
    reader = readers("val")["ins"](DATA, {"ins": classes["ins"]})
    for index in range(0, len(reader), 4):
        sample = reader[index]
        for box, mask in zip(sample.labels["ins"].boxes, sample.labels["ins"].masks, strict=True):
            y, x = np.nonzero(draw_mask(mask, sample.size))
            hull = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert np.abs(box - hull).max() < 2.5, sample.path


def test_a_strong_and_a_weak_view_of_the_same_images_make_batches_of_all_tasks(
    classes: dict[str, ClassList], train: Joined
) -> None:
    size = (128, 128)
    strong = (
        T.Mosaic(size=size),
        T.Letterbox(size=size),
        T.CopyPaste(),
        T.MixUp(),
        T.HorizontalFlip(),
        T.ColorJitter(),
    )
    vision = {"ins": Instances("ins", classes["ins"]), "sem": Segmentation("sem", classes["sem"])}
    views = {
        "strong": SourceView(strong, vision),
        "weak": SourceView((T.Letterbox(size=size),), {"cap": Captions("cap", classes["cap"])}),
    }
    source = Source("coco", train, views, batch_size=8, seed=0, total_batches=10)
    seen = []
    for step in (0, 9):  # with mosaic, and at the end of the run without
        batch = source.batches(step)
        targets = batch["strong"].targets
        assert targets["ins"]["masks"].shape[1:] == (32, 32)
        assert len(targets["ins"]["boxes"]) == len(targets["ins"]["masks"]) == len(targets["ins"]["has_mask"])
        assert targets["sem"]["label_map"].shape == (8, *size)
        assert batch["weak"].targets["cap"]["tokens"].shape[:2] == (8, 1)
        seen.append(targets["ins"]["supervised"].mean())
    assert 0 < np.mean(seen) <= 1


def test_the_truth_scores_perfectly(classes: dict[str, ClassList]) -> None:
    for task in (Instances("ins", classes["ins"]), Captions("cap", classes["cap"])):
        reader, meter = readers("val")[task.name](DATA, {task.name: classes[task.name]}), task.new_meter()
        for index in range(0, len(reader), 3):
            sample = reader[index]
            meter.add(sample, task.truth(sample.labels[task.name]))
        values = meter.result().values
        perfect = [key for key in values if "cider" not in key and not key.endswith(("_constant", "_shuffled"))]
        assert [values[key] for key in perfect] == pytest.approx([1.0] * len(perfect))
        assert values.get("cider_d", 2) > 1.5
