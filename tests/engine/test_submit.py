"""Writing a submission, interrupted."""

import cv2
import numpy as np
import pytest

from ppmtl.engine.submit import predict_test_set
from ppmtl.structures import ClassList
from ppmtl.submission import SubmissionWriter
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


def test_two_tasks_of_one_kind_are_refused(root):
    tasks = {name: Classification(name, CLASSES) for name in ("cls", "cls2")}
    with (
        SubmissionWriter(root / "pred.json", fingerprint={}) as writer,
        pytest.raises(ValueError, match="one answer per kind"),
    ):
        predict_test_set(root, tasks, lambda _images, _tasks: {}, writer, augment=False)
