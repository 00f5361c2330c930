"""Writing a submission, interrupted, by one process and by several."""

import contextlib
import json
import threading
import time

import cv2
import numpy as np
import pytest
from together import together

from ppmtl.challenge.checking import check
from ppmtl.challenge.expected import Expected
from ppmtl.challenge.predict import evaluation_images, write_submission
from ppmtl.data.reader import Reader
from ppmtl.predict.evaluate import EvalSet
from ppmtl.predict.processes import Processes
from ppmtl.structures import ClassList
from ppmtl.tasks.base import Task
from ppmtl.tasks.captions import Captions
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.detection import Detection
from ppmtl.tasks.segmentation import Segmentation

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


class Pictures(Reader):
    """The images under some paths, without labels."""

    required_paths = labels = describe = None

    def __init__(self, paths):
        super().__init__(".", {})
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def path(self, index):
        return str(self.paths[index])

    def image_id(self, index, task):  # noqa: ARG002
        return 40 + index


def test_other_data_are_submitted_by_the_images_of_their_evaluation_sets(root):
    tasks = {
        "kind": Classification("kind", CLASSES),
        "scene": Segmentation("scene", CLASSES),
        "signs": Detection("signs", CLASSES),
        "text": Captions("text", ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]"))),
    }
    paths = sorted((root / "track1_test_data" / "cls" / "test").iterdir())[:2]
    sets = {"all": EvalSet(Pictures(paths), tuple(tasks))}
    images = evaluation_images(tasks, sets)
    assert images == {"kind": {"0.png": paths[0], "1.png": paths[1]}, "scene": {"0.png": paths[0], "1.png": paths[1]},
                      "signs": {40: paths[0], 41: paths[1]}}  # fmt: skip

    def backend(_, names):
        if names == ("signs",):
            return {
                "signs": {"boxes": np.array([[[1, 2, 5, 6]]], np.float32), "scores": np.array([[[0, 0.5]]], np.float32)}
            }
        shape = (1, 2, 8, 8) if names == ("scene",) else (1, 2)
        return {names[0]: {"probs": np.full(shape, 0.5, np.float32)}}

    write_submission(root / "pred.json", root, tasks, backend, weights="w", images=images)
    content = json.loads((root / "pred.json").read_text())
    assert content["cls"] == [{"0.png": 0}, {"1.png": 0}]
    assert [list(entry) for entry in content["seg"]] == [["0.png"], ["1.png"]]
    assert content["dec"][1] == {"image_id": 41, "category_id": 1, "bbox": [1.0, 2.0, 4.0, 4.0], "score": 0.5}
    assert check(root / "pred.json", Expected(seg_classes=2, cls_classes=2)) == []


def test_what_the_challenges_format_cannot_hold_is_refused_in_one_sentence(tmp_path):
    kind, scene = {"kind": Classification("kind", CLASSES)}, {"scene": Segmentation("scene", CLASSES)}
    text = {"text": Captions("text", ClassList(("[PAD]", "[UNK]", "[BOS]", "[EOS]")))}
    two = EvalSet(Pictures([tmp_path / "a" / "1.png", tmp_path / "b" / "1.png"]), ("kind",))
    for tasks, sets, message in (
        (kind, {"x": two}, "calls images by their file names only"),
        (
            scene,
            {"x": EvalSet(Pictures([tmp_path / "1.png", tmp_path / "1.jpg"]), ("scene",))},
            "by their file names only",
        ),
        (kind, {}, "no set for task 'kind'"),
        (text, {}, "text is none of these. tools/infer.py"),
        ({**kind, "more": Classification("more", CLASSES)}, {}, "kind, more all answer cls: choose one with --tasks"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation_images(tasks, sets)


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
