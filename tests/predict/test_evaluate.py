"""Evaluation: the images sharded over several processes, measured as if there were one."""

from dataclasses import replace

import numpy as np
import pytest
from samples import boxes_of, make_sample
from together import together

from ppmtl.predict.evaluate import EvalSet, EvaluationError, evaluate
from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import Segmentation

CLASSES = ClassList(("a", "b", "c", "d", "e", "f"))
TASKS = {"seg": Segmentation("seg", CLASSES), "cls": Classification("cls", CLASSES), "det": Detection("det", CLASSES)}
SIZE = 24


class Images:
    """A reader of images whose first pixel is their number."""

    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        rng = np.random.default_rng(index)
        image = np.full((SIZE, SIZE, 3), index, np.uint8)
        corners = rng.uniform(0, 10, (3, 2)).astype(np.float32)
        return make_sample(
            image,
            label_map=rng.integers(0, 6, (SIZE, SIZE)).astype(np.uint8),
            boxes=np.concatenate([corners, corners + 9], axis=1),
            classes=rng.integers(0, 6, 3),
            class_index=int(rng.integers(6)),
            path=f"{index}.png",
        )


def backend(images, tasks):
    """Answers by the image's number; boxes are near the truth, and their scores have many ties between images."""
    raw = {}
    for task in tasks:
        found = []
        for index in images[:, 0, 0, 0]:
            rng = np.random.default_rng(int(index) + 1000)
            if task == "det":
                truth = np.concatenate([boxes_of(Images(0)[int(index)]).boxes, rng.uniform(0, 24, (9, 4))])
                near = truth + rng.normal(0, 0.7, (12, 4))
                near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
                found.append((near.astype(np.float32), rng.integers(1, 4, (12, 6)).astype(np.float32) / 4))
            else:
                found.append(rng.random((6, SIZE, SIZE) if task == "seg" else 6).astype(np.float32))
        if task == "det":
            raw[task] = {"boxes": np.stack([b for b, _ in found]), "scores": np.stack([s for _, s in found])}
        else:
            raw[task] = {"probs": np.stack(found)}
    return raw


class Gaps(Images):
    """The same, but only every third image has a label for "seg", and the first has none for "det"."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        gone = {"seg"} if index % 3 else {"det"} if index == 0 else set()
        return replace(sample, labels={task: label for task, label in sample.labels.items() if task not in gone})


def separate(count):
    """A data set per task, which has its name."""
    return {name: EvalSet(Images(count), (name,)) for name in TASKS}


def shared(count):
    """One data set for all tasks."""
    return {"street": EvalSet(Images(count), tuple(TASKS))}


def same(left, right):
    """Asserts that two evaluations agree in every bit."""
    for name, metrics in left.metrics.items():
        other = right.metrics[name]
        np.testing.assert_equal(other.values, metrics.values)
        np.testing.assert_equal(other.per_class, metrics.per_class)
        np.testing.assert_array_equal(other.confusion, metrics.confusion)
        np.testing.assert_equal(other.curves, metrics.curves)
    np.testing.assert_equal(left.score, right.score)
    for name, examples in left.examples.items():
        assert [s.path for s, _ in examples] == [s.path for s, _ in right.examples[name]]
    for name, found in left.extremes.items():
        for one, other in ((found.worst, right.extremes[name].worst), (found.best, right.extremes[name].best)):
            np.testing.assert_equal([vars(image) for image in one], [vars(image) for image in other])


@pytest.mark.parametrize("sets", [separate, shared])
@pytest.mark.parametrize(("processes", "batch_size", "images"), [(2, 1, 7), (3, 2, 7), (4, 3, 2)])
def test_several_processes_measure_the_bits_of_one_and_all_know_them(processes, batch_size, images, sets):
    wanted = {"batch_size": batch_size, "num_examples": 3, "num_extremes": 2}
    alone = evaluate(TASKS, sets(images), backend, **wanted)
    assert {name: len(examples) for name, examples in alone.examples.items()} == dict.fromkeys(
        sets(images), min(3, images)
    )
    results = together(
        processes,
        lambda p: evaluate(TASKS, sets(images), backend, **wanted, processes=p),
    )
    for result in results:
        same(alone, result)
        assert result.seconds == results[0].seconds
        assert list(result.seconds) == list(TASKS)


def test_one_data_set_for_all_tasks_measures_what_one_per_task_does():
    joint, apart = (evaluate(TASKS, sets(7), backend, num_examples=2) for sets in (shared, separate))
    for name, metrics in apart.metrics.items():
        np.testing.assert_equal(joint.metrics[name].values, metrics.values)
    assert [list(found) for _, found in joint.examples["street"]] == [list(TASKS)] * 2


def test_the_best_and_worst_images_are_those_of_the_scores_and_drawn_in_pairs():
    full = evaluate(TASKS, shared(9), backend, num_examples=9, num_extremes=2, draw_threshold=0.6)
    for name, task in TASKS.items():
        scores = [
            (task.image_score(sample, found[name], 0.6), sample.path) for sample, found in full.examples["street"]
        ]
        ranked = sorted(scores, key=lambda pair: pair[0])  # stable: of equal scores the first image is first
        assert [(i.score, i.path) for i in full.extremes[name].worst] == ranked[:2]
        best = sorted(ranked[2:], key=lambda pair: -pair[0])[:2]
        assert [(i.score, i.path) for i in full.extremes[name].best] == best
        assert full.extremes[name].best[0].pair.shape == (SIZE, 2 * SIZE + 4, 3)
    few = evaluate(TASKS, shared(3), backend, num_extremes=2)
    assert [len(part) for part in (few.extremes["seg"].worst, few.extremes["seg"].best)] == [2, 1]


def test_every_image_is_read_once_by_one_process_and_tasks_that_show_it_alike_share_a_run():
    calls, sets = [], [shared(11) for _ in range(3)]

    def counted(images, tasks):
        calls.append((len(images), tasks))
        return backend(images, tasks)

    together(3, lambda p: evaluate(TASKS, sets[p.rank], counted, batch_size=2, limit=9, processes=p))
    assert sorted(i for of_process in sets for i in of_process["street"].reader.read) == list(range(9))
    assert sets[1]["street"].reader.read == [2, 3, 8]
    assert sorted(calls) == [(1, tuple(TASKS)), *[(2, tuple(TASKS))] * 4]


def test_tied_boxes_are_ranked_in_the_data_sets_order():
    task = TASKS["det"]
    full = evaluate({"det": task}, {"det": EvalSet(Images(12), ("det",))}, backend, num_examples=12)
    alone = full.metrics["det"].values["ap50_95"]
    states = []
    for part in (full.examples["det"][6:], full.examples["det"][:6]):
        half = task.new_meter()
        for sample, found in part:
            half.add(sample, found["det"])
        states.append(half.state())
    meter = task.new_meter()
    meter.merge(states, np.arange(12))
    assert meter.result().values["ap50_95"] != alone  # else the next line would prove nothing
    meter.merge(states, np.argsort([*range(6, 12), *range(6)]))
    assert meter.result().values["ap50_95"] == alone


def gaps(count):
    """One data set for all tasks in which labels are missing."""
    return {"street": EvalSet(Gaps(count), tuple(TASKS))}


def test_an_image_without_a_tasks_label_is_not_measured_for_it_and_counted():
    found, full = evaluate(TASKS, gaps(7), backend, num_examples=7), evaluate(TASKS, shared(7), backend, num_examples=7)
    assert found.unlabelled == {"seg": 4, "det": 1}
    assert full.unlabelled == {}
    np.testing.assert_equal(found.metrics["cls"].values, full.metrics["cls"].values)
    for name, positions in (("seg", (0, 3, 6)), ("det", range(1, 7))):
        meter = TASKS[name].new_meter()
        for position in positions:
            sample, predictions = full.examples["street"][position]
            meter.add(sample, predictions[name])
        np.testing.assert_equal(found.metrics[name].values, meter.result().values)


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 1), (3, 2), (4, 3)])
def test_several_processes_measure_the_bits_of_one_where_labels_are_missing(processes, batch_size):
    alone = evaluate(TASKS, gaps(8), backend, batch_size=batch_size)
    work = lambda p: evaluate(TASKS, gaps(8), backend, batch_size=batch_size, processes=p)  # noqa: E731
    for result in together(processes, work):
        same(alone, result)
        assert result.unlabelled == alone.unlabelled == {"seg": 5, "det": 1}


def test_a_data_set_without_any_label_for_a_task_is_an_error_unless_only_its_first_images_are_measured():
    unlabelled = EvalSet(Gaps(1), ("seg", "det"))
    with pytest.raises(ValueError, match=r"eval\.datasets\.street: none of its 1 images has a label for task 'det'"):
        evaluate(TASKS, {"street": unlabelled}, backend)
    found = evaluate(TASKS, {"street": EvalSet(Gaps(9), ("seg", "det", "cls"))}, backend, limit=1)
    assert np.isnan(found.metrics["det"].values["ap50"])
    assert found.unlabelled == {"det": 1}


class Spoiled(Images):
    """A reader whose image 3 cannot be read."""

    def __getitem__(self, index):
        if index == 3:
            raise ValueError("3.png: cut off")
        return super().__getitem__(index)


def test_an_unreadable_image_is_named_with_its_data_set_on_every_process():
    def failing(processes):
        with pytest.raises(EvaluationError) as caught:
            evaluate(TASKS, {"street": EvalSet(Spoiled(5), tuple(TASKS))}, backend, processes=processes)
        return str(caught.value)

    assert together(2, failing) == ["evaluation of street, tasks seg, cls, det: 3.png: cut off"] * 2


def test_a_label_that_a_task_cannot_measure_is_named_with_the_task_and_the_file():
    class Mistaken(Images):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            sample.labels["cls"] = sample.labels["det"]
            return sample

    with pytest.raises(EvaluationError, match=r"evaluation of street, task 'cls': 0\.png: task 'cls' needs a label"):
        evaluate(TASKS, {"street": EvalSet(Mistaken(2), tuple(TASKS))}, backend)
