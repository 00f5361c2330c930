"""Starting from weights of other classes: the entire backbone, heads by name, and every difference said."""

from __future__ import annotations

import logging

import numpy as np
import paddle
import pytest

from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.heads.cbam_fc import CBAMFC
from ppmtl.models.heads.upernet import UPerNet
from ppmtl.models.heads.yolov5 import YOLOv5
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.structures import ClassList
from ppmtl.train import checkpoint
from ppmtl.train.finetune import load_initial

CLASSES = {"seg": ("road", "sky", "car"), "cls": ("a", "b", "c", "d"), "det": ("stop", "yield")}


def build(
    seed: int, *, widths: tuple[int, int, int, int] = (4, 6, 8, 10), aux: float = 0.4, **classes: tuple[str, ...]
) -> MultiTaskModel:
    paddle.seed(seed)
    backbone = ConvNeXt(depths=(1, 1, 1, 1), dims=widths, layer_scale_init=1.0)
    specs, count = backbone.out_specs, {task: len(names) for task, names in (classes or CLASSES).items()}
    makers = {
        "seg": lambda n: UPerNet(specs, n, channels=8, aux_weight=aux),
        "cls": lambda n: CBAMFC(specs, n, channels=8),
        "det": lambda n: YOLOv5(specs, n),
    }
    return MultiTaskModel(backbone, {task: makers[task](n) for task, n in count.items()})


def values(model: MultiTaskModel) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


STORED = {task: {"names": list(names), "ids": list(range(len(names)))} for task, names in CLASSES.items()}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    model = build(1)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.125)  # biases start at zero in every model
    return values(model)


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ppmtl"), "propagate", True)
    return caplog


def load(model: MultiTaskModel, arrays, stored=STORED, **classes: tuple[str, ...]) -> None:
    lists = {task: ClassList(names) for task, names in (classes or CLASSES).items()}
    load_initial(model, arrays, "best_model", stored_classes=stored, classes=lists)


def not_loaded(model: MultiTaskModel, arrays) -> set[str]:
    return {n for n, v in values(model).items() if not np.array_equal(v, arrays.get(n, np.zeros(0)))}


def test_the_same_classes_load_completely_and_nothing_is_said(arrays, said):
    model = build(2)
    load(model, arrays)
    assert not_loaded(model, arrays) == set()
    load(model, arrays, stored=STORED | {"cls": {"names": ["0", "1", "2", "3"], "ids": [0, 1, 2, 3]}})  # only counted
    assert said.messages == []


def test_another_number_of_classes_starts_the_classifiers_afresh_by_name(arrays, said):
    classes = {"seg": CLASSES["seg"] + ("bus",), "cls": CLASSES["cls"], "det": ("stop",)}
    model = build(2, **classes)
    before = values(model)
    load(model, arrays, **classes)
    fresh = {f"heads.seg.{n}.{kind}" for n in ("classifier", "aux.2") for kind in ("weight", "bias")}
    fresh |= {f"heads.det.outputs.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")}
    assert not_loaded(model, arrays) == fresh
    assert all(np.array_equal(values(model)[name], before[name]) for name in fresh)
    seg, det = said.messages
    assert seg.startswith("weights best_model: head 'seg' answered 3 classes, now 4: 4 of its ")
    assert "classifier.weight [3, 8, 1, 1] -> [4, 8, 1, 1]; classifier.bias [3] -> [4]" in seg
    assert "head 'det' answered 2 classes, now 1: 6 of its" in det


def test_an_unknown_class_list_is_called_unknown(arrays, said):
    classes = CLASSES | {"cls": ("a", "b")}
    load(build(2, **classes), arrays, stored=None, **classes)
    assert "head 'cls' answered an unknown number of classes, now 2: 2 of its" in said.text


def test_a_new_task_starts_afresh_and_a_task_of_the_file_may_be_left_out(arrays, said):
    classes = {"cls": CLASSES["cls"], "seg": CLASSES["seg"]}
    model = build(2, **classes)
    file = {name: array for name, array in arrays.items() if not name.startswith("heads.seg.")}
    load(model, file, stored={k: v for k, v in STORED.items() if k != "seg"}, **classes)
    assert {name.split(".")[1] for name in not_loaded(model, file)} == {"seg"}
    assert said.messages == [
        "weights best_model: head 'seg' is not in the file, or fits nowhere: all its tensors start afresh",
        "weights best_model: the heads det are not of this run and left out",
    ]


def test_a_head_built_without_a_part_says_what_it_does_not_use(arrays, said):
    model = build(2, aux=0.0)
    load(model, arrays)
    assert not_loaded(model, arrays) == set()
    assert "head 'seg': 8 tensors of the file are not used: aux.0.conv.weight; aux.0.conv.bias;" in said.messages[0]


def test_as_many_classes_of_other_names_load_with_a_warning(arrays, said):
    classes = CLASSES | {"cls": ("a", "c", "b", "e")}
    model = build(2, **classes)
    load(model, arrays, **classes)
    assert not_loaded(model, arrays) == set()
    assert len(said.messages) == 1
    assert "other classes at 3 of 4 places (1: 'b' is now 'c'; 2: 'c' is now 'b'; 3: 'd' is now 'e')" in said.text
    assert "give tasks.cls.classes.names in the file's order" in said.text


def test_a_backbone_that_does_not_match_is_refused_and_nothing_is_loaded(arrays):
    model = build(2, widths=(4, 6, 8, 12))
    before = values(model)
    with pytest.raises(ValueError, match=r"best_model: these weights are of another model"):
        load(model, arrays)
    assert not_loaded(model, before) == set()
    with pytest.raises(ValueError, match=r"1 missing: backbone\.stages\.0\.0\.gamma"):
        load(build(2), {n: a for n, a in arrays.items() if n != "backbone.stages.0.0.gamma"})
    with pytest.raises(ValueError, match=r"1 unexpected: neck\.weight"):
        load(build(2), arrays | {"neck.weight": np.zeros(1, np.float32)})


def test_resuming_stays_strict(arrays):
    model = build(2, **(CLASSES | {"cls": ("a", "b")}))
    with pytest.raises(ValueError, match="2 other shape"):
        checkpoint.load_weights(model, arrays, "step_0000010")
