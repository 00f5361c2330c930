"""How the served model shows a picture to its tasks."""

import dataclasses

from serving_fakes import FakeNetwork, fake_model

from ppmtl.structures import ClassList
from ppmtl.tasks.classification import Classification
from ppmtl.tasks.segmentation import Segmentation

CLASSES = ClassList(("a", "b"))
TASKS = {
    "seg": Segmentation("seg", CLASSES, input_size=(48, 64)),
    "cls": Classification("cls", CLASSES, input_size=(16, 16)),
}


def shown(**changes) -> dict[tuple[int, int], tuple[str, ...]]:
    network = FakeNetwork()
    model = dataclasses.replace(fake_model(network, **changes), tasks=TASKS)
    views = model.pipeline(("seg", "cls"), network, (90, 120), augment=False).views((90, 120))
    return {view.size: names for view, names in views.items()}


def test_one_size_for_all_tasks_is_one_run():
    assert shown() == {(32, 48): ("seg", "cls")}


def test_every_task_may_have_its_own_size():
    assert shown(per_task_size=True) == {(48, 64): ("seg",), (16, 16): ("cls",)}
