"""Evaluation: the pictures dealt out to several processes, measured as if there were one."""

import numpy as np
import pytest
from together import together

from ppmtl.predict.evaluate import evaluate
from ppmtl.structures import ClassList, Sample
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import Segmentation

CLASSES = ClassList(("a", "b", "c", "d", "e", "f"))
TASKS = {"seg": Segmentation("seg", CLASSES), "cls": Classification("cls", CLASSES), "det": Detection("det", CLASSES)}
SIZE = 24


class Pictures:
    """Pictures whose first pixel is their number."""

    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        rng = np.random.default_rng(index)
        image = np.full((SIZE, SIZE, 3), index, np.uint8)
        corners = rng.uniform(0, 10, (3, 2)).astype(np.float32)
        return Sample(
            f"{index}.png",
            image,
            label_map=rng.integers(0, 6, (SIZE, SIZE)).astype(np.uint8),
            boxes=np.concatenate([corners, corners + 9], axis=1),
            box_labels=rng.integers(0, 6, 3),
            class_index=int(rng.integers(6)),
        )


def backend(images, tasks):
    """Answers by the picture's number; boxes are near the truth, and their scores have many ties between pictures."""
    raw = {}
    for task in tasks:
        found = []
        for index in images[:, 0, 0, 0]:
            rng = np.random.default_rng(int(index) + 1000)
            if task == "det":
                truth = np.concatenate([Pictures(0)[int(index)].boxes, rng.uniform(0, 24, (9, 4))])
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


def datasets(count):
    return {name: Pictures(count) for name in TASKS}


def same(left, right):
    """Asserts that two evaluations agree in every bit."""
    for name, metrics in left.metrics.items():
        other = right.metrics[name]
        np.testing.assert_equal(other.values, metrics.values)
        np.testing.assert_equal(other.per_class, metrics.per_class)
        np.testing.assert_array_equal(other.confusion, metrics.confusion)
        np.testing.assert_equal(other.curves, metrics.curves)
        assert [s.path for s, _ in left.examples[name]] == [s.path for s, _ in right.examples[name]]
    np.testing.assert_equal(left.score, right.score)


@pytest.mark.parametrize(("processes", "batch_size", "pictures"), [(2, 1, 7), (3, 2, 7), (4, 3, 2)])
def test_several_processes_measure_the_bits_of_one_and_all_know_them(processes, batch_size, pictures):
    alone = evaluate(TASKS, datasets(pictures), backend, batch_size=batch_size, num_examples=3)
    assert len(alone.examples["det"]) == min(3, pictures)
    results = together(
        processes,
        lambda p: evaluate(TASKS, datasets(pictures), backend, batch_size=batch_size, num_examples=3, processes=p),
    )
    for result in results:
        same(alone, result)
        assert result.seconds == results[0].seconds


def test_every_picture_is_read_once_and_by_one_process():
    sets = [datasets(11) for _ in range(3)]
    together(3, lambda p: evaluate(TASKS, sets[p.rank], backend, batch_size=2, limit=9, processes=p))
    for name in TASKS:
        assert sorted(i for part in sets for i in part[name].read) == list(range(9))
    assert sets[1]["seg"].read == [2, 3, 8]


def test_tied_boxes_are_ranked_in_the_data_sets_order():
    task = {"det": TASKS["det"]}
    whole = evaluate(task, {"det": Pictures(12)}, backend, num_examples=12)
    alone = whole.metrics["det"].values["ap50_95"]
    states = []
    for part in (whole.examples["det"][6:], whole.examples["det"][:6]):
        half = TASKS["det"].new_meter()
        for sample, prediction in part:
            half.add(sample, prediction)
        states.append(half.state())
    meter = TASKS["det"].new_meter()
    meter.merge(states, np.arange(12))
    assert meter.result().values["ap50_95"] != alone  # else the next line would prove nothing
    meter.merge(states, np.argsort([*range(6, 12), *range(6)]))
    assert meter.result().values["ap50_95"] == alone
