"""Every task type under ``ppmtl/tasks``: what is declared in ``tasks/base.py`` holds, and a right answer scores perfectly."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from ppmtl.config import resolve_part
from ppmtl.config.meanings import section
from ppmtl.config.parts import part_names
from ppmtl.data.canvas import Canvas
from ppmtl.predict.pipeline import Pipeline
from ppmtl.predict.result_files import csv_rows
from ppmtl.structures import ClassList, Sample, Size
from ppmtl.tasks.base import Task
from ppmtl.tasks.views import Slicing, View

NAMES = part_names("ppmtl.tasks")
CLASSES = ClassList(tuple("abcde"), (3, 5, 7, 11, 13))
VOCABULARY = ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]", *"abcde"))
CLASSES_OF = {"captions": VOCABULARY}
PERFECT = {
    "captions": "bleu4"
}  # its primary metric, CIDEr-D, is 0 for a set of one image (ppmtl/ops/caption_scores.py)
SIZE: Size = (96, 160)  # of the image; every view below scales it by a whole number, so nothing is lost to sampling


def make(name: str, **settings: Any) -> Task[Any]:
    task = resolve_part("ppmtl.tasks", name)("asked", CLASSES_OF.get(name, CLASSES), **settings)
    assert isinstance(task, Task)
    return task


def sample_for(task: Task[Any]) -> Sample:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    return Sample("a.jpg", image, {"asked": task.example(SIZE)})


class Oracle:
    """A backend that is right: it answers every view with the label moved as the view moves the image."""

    def __init__(self, task: Task[Any], sample: Sample) -> None:
        self.task, self.sample = task, sample
        self.views: list[View] = []  # still to come, in the pipeline's order
        self.shown = 0

    def __call__(self, images: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
        assert names == ("asked",)
        assert len(images) == 1
        view, self.shown = self.views[self.shown], self.shown + 1
        canvas = Canvas(self.sample)
        canvas.min_visible = 0.0
        canvas.move(view.to_input(SIZE), view.size)
        return {"asked": self.task.perfect_raw(canvas.sample.labels["asked"], view.size)}


def score(task: Task[Any], **options: Any) -> tuple[float, int]:
    """The primary metric of the oracle's answers, and the number of views."""
    sample = sample_for(task)
    oracle = Oracle(task, sample)
    pipeline = Pipeline({"asked": task}, oracle, **options)
    # The pipeline groups views by size, in the order in which sizes first occur
    views = list(pipeline.views(SIZE))
    oracle.views = sorted(views, key=lambda view: [other.size for other in views].index(view.size))
    (found,) = pipeline.predict([sample.image], [sample.path])
    meter = task.new_meter()
    meter.add(sample, found["asked"])
    metrics = meter.result()
    return metrics.values[PERFECT.get(task.task_type, metrics.primary)], oracle.shown


def test_the_listing_found_the_task_types() -> None:
    assert {"captions", "classification", "detection", "instances", "segmentation"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_annotated_keywords_with_defaults(name: str) -> None:
    parameters = list(inspect.signature(resolve_part("ppmtl.tasks", name)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["name", "classes"]
    for p in parameters[2:]:
        assert (p.kind, p.annotation is p.empty, p.default is p.empty) == (p.KEYWORD_ONLY, False, False), p


VIEWS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {  # task settings, pipeline options, number of views
    "original size": ({}, {}, 1),
    "stretched": ({"input_size": (192, 480)}, {}, 1),
    "letterboxed above and below": ({"input_size": (320, 320), "letterbox": True}, {}, 1),
    "letterboxed left and right": ({"input_size": (192, 640), "letterbox": True}, {}, 1),
    "long side": ({"long_side": 320}, {}, 1),
    "mirrored and scaled": ({}, {"augment": True}, 2),
    "letterboxed, mirrored": ({"input_size": (320, 320), "letterbox": True}, {"augment": True}, 2),
    "shared size": ({"input_size": (5, 5)}, {"shared_size": (192, 320)}, 1),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_scores_perfectly_through_every_view(name: str, view: str) -> None:
    settings, options, count = VIEWS[view]
    task = make(name, **settings)
    count = count if task.mirrors else 1
    assert score(task, **options) == (pytest.approx(1.0), count)


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_scores_perfectly_in_tiles_too(name: str, letterbox: bool) -> None:
    task = make(name, input_size=(192, 320), letterbox=letterbox)
    value, views = score(task, slicing=Slicing(size=(64, 64), overlap=(0.5, 0.5)))
    assert value == pytest.approx(1.0)
    # A task that cannot put tiles together makes none; there, asking it to is our own mistake
    tiled = bool(task.tiles(SIZE, Slicing(size=(64, 64))))
    assert (views > 1) == tiled


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_a_perfect_image_and_the_legend_names_classes(name: str) -> None:
    task = make(name)
    sample = sample_for(task)
    assert task.image_score(sample, task.truth(sample.labels["asked"]), 0.5) == pytest.approx(1.0)
    assert set(task.legend()) <= set(CLASSES.names)
    assert all(0 <= part <= 255 for color in task.legend().values() for part in color)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_has_arrays_by_name_and_coco_entries_or_none(name: str) -> None:
    task = make(name)
    found = task.truth(task.example(SIZE))
    assert all(isinstance(key, str) for key in task.arrays(found))
    assert len(task.arrays(found)) >= 1
    entries = task.coco_results(found)
    assert entries is None or json.loads(json.dumps(entries)) == entries
    if entries:  # what a results file needs of them, besides the image's id
        assert all({"category_id", "bbox", "score"} <= set(entry) or "caption" in entry for entry in entries)
        kept = task.coco_results(found, threshold=1.0)
        assert kept == entries  # the truth is certain


@pytest.mark.parametrize("name", NAMES)
def test_targets_and_perfect_answers_have_the_declared_form(name: str) -> None:
    task = make(name)
    targets = task.example_targets(3, SIZE)
    assert targets
    assert all(array.size and array.dtype in (np.int64, np.float32, np.uint8) for array in targets.values())
    raw, shapes = task.perfect_raw(task.example(SIZE), SIZE), task.raw_shapes(1, SIZE)
    assert sorted(raw) == sorted(shapes) == sorted(task.tolerances)
    for key, shape in shapes.items():
        assert raw[key].dtype == np.float32
        assert [None if want is None else have for have, want in zip(raw[key].shape, shape, strict=True)] == list(shape)


@pytest.mark.parametrize("name", NAMES)
def test_a_label_of_another_kind_is_refused_by_name_and_a_meter_takes_no_image_without_one(name: str) -> None:
    task = make(name)
    others = [make(other) for other in NAMES if make(other).label_type is not task.label_type]
    for labels in ({}, {"asked": others[0].example(SIZE)}):
        bad = Sample("street.jpg", np.zeros((*SIZE, 3), np.uint8), labels)
        what = rf"street\.jpg: task 'asked' needs a label of kind {task.label_type.__name__}"
        with pytest.raises(ValueError, match=what):
            task.new_meter().add(bad, task.truth(task.example(SIZE)))
        if labels:
            with pytest.raises(ValueError, match=what):
                task.collate([bad])


@pytest.mark.parametrize("name", NAMES)
def test_targets_keep_their_form_where_labels_are_missing_and_differ_from_those_of_labels(name: str) -> None:
    task = make(name)
    labelled = sample_for(task)
    missing = Sample("b.jpg", labelled.image, {})
    full = task.collate([labelled, labelled])
    for samples in ([labelled, missing], [missing, missing]):
        targets = task.collate(samples)
        assert {key: array.dtype for key, array in targets.items()} == {key: a.dtype for key, a in full.items()}
        assert all(array.size for array in targets.values())
        assert any(not np.array_equal(array, full[key]) for key, array in targets.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_a_prediction_that_measures_perfect_and_is_what_json_drawing_and_masks_take(name: str) -> None:
    task, sample = make(name), sample_for(make(name))
    truth = task.truth(sample.labels["asked"])
    meter = task.new_meter()
    meter.add(sample, truth)
    metrics = meter.result()
    assert metrics.values[PERFECT.get(name, metrics.primary)] == pytest.approx(1.0)
    assert len({len(column) for column in metrics.per_class.values()}) <= 1
    document = task.to_json(truth)
    TypeAdapter(task.json_type).validate_json(json.dumps(document), strict=True)
    drawn = task.draw(sample.image.copy(), truth, 0.5)
    assert (drawn.shape, drawn.dtype) == (sample.image.shape, np.uint8)
    assert (drawn != sample.image).any()
    mask = task.mask(truth)
    assert mask is None or (mask.shape, mask.dtype) == (SIZE, np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_what_result_files_hold_is_measured_as_the_answer_or_refused(name: str) -> None:
    task, sample = make(name), sample_for(make(name))
    truth = task.truth(sample.labels["asked"])
    stored: Any = task.coco_results(truth)
    stored = task.mask(truth) if stored is None else json.loads(json.dumps(stored))
    if stored is None:
        stored = [{key: str(value) for key, value in row.items()} for row in csv_rows(task.to_json(truth))]
    if type(task).from_results is Task.from_results:
        with pytest.raises(ValueError, match="does not read its results back"):
            task.from_results(stored, SIZE)
        return
    meter = task.new_meter()
    meter.add(sample, task.from_results(stored, SIZE))
    metrics = meter.result()
    assert metrics.values[PERFECT.get(name, metrics.primary)] == pytest.approx(1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_metrics_that_new_meter_describes_are_those_that_it_measures(name: str) -> None:
    task, sample = make(name), sample_for(make(name))
    meter = task.new_meter()
    meter.add(sample, task.truth(sample.labels["asked"]))
    described = section(type(task).new_meter.__doc__ or "", ("Metrics:",))
    assert list(described) == list(meter.result().values), "name and explain them below 'Metrics:' in its docstring"


@pytest.mark.parametrize("name", NAMES)
def test_meters_of_several_processes_give_the_bits_of_one(name: str) -> None:
    task, rng = make(name), np.random.default_rng(1)
    samples = [sample_for(task) for _ in range(5)]
    answers = [{key: rng.random(array.shape, np.float32) for key, array in task.perfect_raw(s.labels["asked"], SIZE).items()}
               for s in samples]  # fmt: skip
    found = [task.decode(raw, 0, View(SIZE).meta(SIZE, "x"), single=True) for raw in answers]
    alone, meters = task.new_meter(), [task.new_meter(), task.new_meter()]
    for index, (sample, prediction) in enumerate(zip(samples, found, strict=True)):
        alone.add(sample, prediction)
        meters[index % 2].add(sample, prediction)
    meters[0].merge([meter.state() for meter in meters], np.argsort([0, 2, 4, 1, 3]))
    assert repr(dataclasses.asdict(meters[0].result())) == repr(dataclasses.asdict(alone.result()))


@pytest.mark.parametrize("name", NAMES)
def test_one_view_comes_back_from_a_merge_unchanged(name: str) -> None:
    task = make(name)
    merge, truth = task.new_merge(), task.truth(task.example(SIZE))
    merge.add(truth)
    for key, value in vars(merge.result()).items():
        np.testing.assert_equal(value, getattr(truth, key))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_label_counts_the_classes_that_it_shows_or_has_none(name: str) -> None:
    task = make(name)
    label = task.example(SIZE)
    counts = label.class_counts(len(task.classes))
    if counts is None:  # a label without classes
        assert len(label.objects()) == 0
        return
    assert (counts.shape, counts.dtype.kind) == ((len(task.classes),), "i")
    assert counts.sum() > 0
    assert len(label.objects()) in (0, counts.sum())
