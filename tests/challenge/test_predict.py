"""Writing a submission, interrupted, by one process and by several."""

import contextlib
import threading
import time

import cv2
import numpy as np
import pytest
from together import together

from ppmtl.challenge.predict import write_submission
from ppmtl.predict.processes import Processes
from ppmtl.structures import ClassList
from ppmtl.tasks.base import Task
from ppmtl.tasks.classification import Classification

CLASSES = ClassList(("a", "b"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "track1_test_data" / "cls" / "test"
    folder.mkdir(parents=True)
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((8, 8, 3), index, np.uint8))
    return tmp_path


def predict(root, count=1, calls_until_power_cut=99, **options):
    """Returns the images that each of ``count`` processes computed."""
    seen = [[] for _ in range(count)]

    def work(processes):
        mine = seen[processes.rank]

        def backend(images, tasks):
            if len(mine) == calls_until_power_cut:
                while not all(seen):
                    time.sleep(0.001)
                raise KeyboardInterrupt
            mine.append(int(images[0, 0, 0, 0]))
            return {tasks[0]: {"probs": np.array([[0.1, 0.9]], np.float32)}}

        tasks = {"cls": Classification("cls", CLASSES)}
        write_submission(root / "pred.json", root, tasks, backend, **{"weights": "w", **options}, processes=processes)

    with contextlib.suppress(KeyboardInterrupt, threading.BrokenBarrierError):
        together(count, work)
    return seen


def test_finished_images_are_not_computed_again_and_the_file_is_the_same(root):
    assert predict(root, calls_until_power_cut=3) == [[0, 1, 2]]
    assert not (root / "pred.json").exists()
    assert predict(root) == [[3, 4]]
    resumed = (root / "pred.json").read_bytes()
    assert predict(root) == [[0, 1, 2, 3, 4]]
    assert (root / "pred.json").read_bytes() == resumed


def test_several_processes_write_the_bytes_of_one_each_image_once(root):
    predict(root)
    alone = (root / "pred.json").read_bytes()
    (root / "pred.json").unlink()
    assert predict(root, 3) == [[0, 3], [1, 4], [2]]
    assert (root / "pred.json").read_bytes() == alone
    assert not (root / "pred.json.parts").exists()


def test_what_three_processes_left_two_or_one_finish(root):
    predict(root)
    alone = (root / "pred.json").read_bytes()
    (root / "pred.json").unlink()
    for count, first, rest in ((2, [[0], [1], [2]], [[3], [4]]), (1, [[0], [1], [2]], [[3, 4]])):
        assert predict(root, 3, calls_until_power_cut=1) == first
        assert not (root / "pred.json").exists()
        assert predict(root, count) == rest
        assert (root / "pred.json").read_bytes() == alone
        (root / "pred.json").unlink()


def test_half_a_line_that_another_process_left_is_done_again(root):
    predict(root, 3, calls_until_power_cut=1)
    part = root / "pred.json.parts" / "cls.2.part"
    part.write_bytes(part.read_bytes()[:-3])
    assert predict(root) == [[2, 3, 4]]


@pytest.mark.parametrize(
    "other, named", [({"weights": "w2"}, "weights"), ({"max_boxes": 7}, "max_boxes"), ({"augment": True}, "tta")]
)
def test_a_run_with_other_settings_is_refused_until_it_restarts(root, other, named):
    predict(root, calls_until_power_cut=3)
    with pytest.raises(ValueError, match=rf"left by another run, with different {named};"):
        predict(root, **other)
    assert predict(root, **other, resume=False) == [sorted([0, 1, 2, 3, 4] * (1 + ("augment" in other)))]


def test_two_tasks_for_one_section_and_a_task_without_one(root):
    class Other(Task):
        collate = decode = new_merge = new_meter = draw = example = perfect_raw = raw_shapes = to_json = truth = None

    tasks = {name: Classification(name, CLASSES) for name in ("cls", "cls2")}
    with pytest.raises(ValueError, match="one task for each of seg, cls and det"):
        write_submission(root / "pred.json", root, tasks, None, weights="w")

    def backend(_, tasks):
        assert tasks == ("cls",)
        return {"cls": {"probs": np.array([[0.1, np.nan]], np.float32)}}

    tasks = {"other": Other("other", CLASSES), "cls": tasks["cls"]}
    with pytest.raises(ValueError, match=r"0\.png: class probabilities must be finite"):
        write_submission(root / "pred.json", root, tasks, backend, weights="w", processes=Processes())
