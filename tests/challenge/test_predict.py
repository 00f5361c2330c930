"""Writing a submission, interrupted."""

import contextlib
import threading
import time

import cv2
import numpy as np
import pytest
from together import together

from ppmtl.challenge import SubmissionWriter
from ppmtl.challenge.predict import open_writer, predict_test_set
from ppmtl.predict.processes import Processes
from ppmtl.structures import ClassList, ClassProbs
from ppmtl.tasks.classification import Classification

CLASSES = ClassList(("a", "b"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "track1_test_data" / "cls" / "test"
    folder.mkdir(parents=True)
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((8, 8, 3), index, np.uint8))
    return tmp_path


def predict(root, calls_until_power_cut=99):
    seen = []

    def backend(images, tasks):
        if len(seen) == calls_until_power_cut:
            raise KeyboardInterrupt
        seen.append(int(images[0, 0, 0, 0]))
        return {tasks[0]: {"probs": np.array([[0.1, 0.9]], np.float32)}}

    task = {"cls": Classification("cls", CLASSES)}
    with SubmissionWriter(root / "pred.json", fingerprint={"weights": "w"}) as writer:
        predict_test_set(root, task, backend, writer, augment=False)
        writer.finish()
    return seen


def test_finished_pictures_are_not_computed_again_and_the_file_is_the_same(root):
    with pytest.raises(KeyboardInterrupt):
        predict(root, calls_until_power_cut=3)
    assert not (root / "pred.json").exists()
    assert predict(root) == [3, 4]
    resumed = (root / "pred.json").read_bytes()
    assert predict(root) == [0, 1, 2, 3, 4]
    assert (root / "pred.json").read_bytes() == resumed


def predict_together(root, count, calls_until_power_cut=99):
    """Returns the pictures that each of ``count`` processes computed."""
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

        task = {"cls": Classification("cls", CLASSES)}
        with open_writer(root / "pred.json", processes, fingerprint={"weights": "w"}) as writer:
            predict_test_set(root, task, backend, writer, augment=False, processes=processes)
            if processes.rank == 0:
                writer.finish()

    with contextlib.suppress(KeyboardInterrupt, threading.BrokenBarrierError):
        together(count, work)
    return seen


def test_several_processes_write_the_bytes_of_one_each_picture_once(root):
    predict(root)
    alone = (root / "pred.json").read_bytes()
    (root / "pred.json").unlink()
    assert predict_together(root, 3) == [[0, 3], [1, 4], [2]]
    assert (root / "pred.json").read_bytes() == alone
    assert not (root / "pred.json.parts").exists()


def test_what_three_processes_left_two_or_one_finish(root):
    predict(root)
    alone = (root / "pred.json").read_bytes()
    (root / "pred.json").unlink()
    for count, first, rest in ((2, [[0], [1], [2]], [[3], [4]]), (1, [[0], [1], [2]], [[3, 4]])):
        assert predict_together(root, 3, calls_until_power_cut=1) == first
        assert not (root / "pred.json").exists()
        assert predict_together(root, count) == rest
        assert (root / "pred.json").read_bytes() == alone
        (root / "pred.json").unlink()


def test_half_a_line_that_another_process_left_is_done_again(root):
    predict_together(root, 3, calls_until_power_cut=1)
    part = root / "pred.json.parts" / "cls.2.part"
    part.write_bytes(part.read_bytes()[:-3])
    assert predict_together(root, 1) == [[2, 3, 4]]


def test_a_file_that_lacks_pictures_is_not_written(root):
    with open_writer(root / "pred.json", Processes(), fingerprint={}) as writer:
        writer.expect("cls", ["0.png", "1.png"])
        writer.add_classification("1.png", ClassProbs(np.eye(2)[0]))
        with pytest.raises(ValueError, match=r"cls lacks 1 pictures, e\.g\. 0\.png"):
            writer.finish()
    assert not (root / "pred.json").exists()


def test_two_tasks_of_one_kind_are_refused(root):
    tasks = {name: Classification(name, CLASSES) for name in ("cls", "cls2")}
    with (
        SubmissionWriter(root / "pred.json", fingerprint={}) as writer,
        pytest.raises(ValueError, match="one answer per kind"),
    ):
        predict_test_set(root, tasks, lambda _images, _tasks: {}, writer, augment=False)
