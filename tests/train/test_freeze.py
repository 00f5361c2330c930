"""Frozen parts: bit-equal after steps, no statistics, no gradient, still evaluated; mistakes are named."""

from __future__ import annotations

import logging

import numpy as np
import paddle
import pytest

from ppmtl.config.settings import OptimizerSettings
from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.models.heads.cbam_fc import CBAMFC
from ppmtl.models.heads.upernet import UPerNet
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.train.freeze import freeze
from ppmtl.train.optim import build_optimizer

STAGES = tuple(f"backbone.{kind}.{i}" for i in (0, 1, 2) for kind in ("downsample_layers", "stages"))


@pytest.fixture
def model() -> MultiTaskModel:
    paddle.seed(0)
    backbone = ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), layer_scale_init=1.0, drop_path_rate=0.5)
    heads = {"seg": UPerNet(backbone.out_specs, 3, channels=8), "cls": CBAMFC(backbone.out_specs, 5, channels=8)}
    return MultiTaskModel(backbone, heads)


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ppmtl"), "propagate", True)
    return caplog


def step(model: MultiTaskModel, tasks: tuple[str, ...] = ("seg", "cls")) -> None:
    """Makes one training step with a large rate and a large decay, so that whatever can move does."""
    rng = np.random.default_rng(0)
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate=0.1, weight_decay=0.5, decay_1d=True))
    every = {
        "seg": {"label_map": paddle.to_tensor(rng.integers(0, 3, (2, 64, 64)))},
        "cls": {"class_index": paddle.to_tensor([1, 4])},
    }
    images = paddle.to_tensor(rng.integers(0, 256, (2, 64, 64, 3), np.uint8))
    for task in tasks:
        terms = model(images, targets={task: every[task]})
        paddle.add_n(list(terms[task].values())).backward()
    optimizer.step()


def values(model: MultiTaskModel) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def changed(model: MultiTaskModel, before: dict[str, np.ndarray]) -> set[str]:
    return {name for name, value in values(model).items() if not np.array_equal(value, before[name])}


def test_frozen_parts_keep_every_bit_through_steps_and_the_rest_moves(model):
    frozen = ("backbone.stages.0", "backbone.norm3.bias", "heads.seg.fpn_convs", "heads.cls.conv")
    count = freeze(model, frozen)
    before = values(model)
    for _ in range(2):
        model.eval()
        model.train()  # as after every evaluation
        step(model)
    inside = {name for name in before if any(f"{name}.".startswith(f"{part}.") for part in frozen)}
    statistics = {name for name in inside if name.endswith(("_mean", "_variance"))}
    assert len(statistics) == 2 * (3 + 1)  # they would move even without a gradient
    assert count == len(inside) - len(statistics)
    assert changed(model, before) == before.keys() - inside


def test_frozen_parts_stay_in_evaluation_mode_and_come_out_the_same_each_time(model):
    freeze(model, ["backbone"])
    model.train()
    images = paddle.rand([4, 3, 64, 64])
    first, second = model.backbone(images), model.backbone(images)
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)  # drop-path is .5
    assert model.training
    assert model.heads["seg"].training
    assert not any(layer.training for layer in model.backbone.sublayers(include_self=True))


def test_nothing_below_the_first_trained_parameter_is_differentiated(model):
    seen: dict[str, bool] = {}
    model.backbone.kernels = "paddle"  # whose stages can be looked into; numba's: tests/models/test_convnext_cpu.py
    for name in ("stages.2", "stages.3"):
        layer = model.backbone.stages[int(name[-1])]
        layer.register_forward_post_hook(lambda _, __, output, name=name: seen.update({name: output.stop_gradient}))
    freeze(model, STAGES)
    step(model)
    assert seen == {"stages.2": True, "stages.3": False}
    assert all(p.grad is None for n, p in model.named_parameters() if n.startswith(STAGES))


def test_a_frozen_head_is_evaluated_and_its_loss_still_moves_the_backbone_which_is_said(model, said):
    freeze(model, ["heads.cls"])
    assert said.messages == [
        "train.freeze: the head of task 'cls' is frozen; its loss still trains the backbone; leave the task out with "
        "--tasks seg if it must not"
    ]
    before = values(model)
    step(model, tasks=("cls",))
    moved = changed(model, before)
    assert moved
    assert all(name.startswith("backbone.") for name in moved)
    model.eval()
    assert "probs" in model(paddle.zeros([1, 64, 64, 3]), tasks=["cls"])["cls"]


def test_a_task_whose_batches_train_nothing_is_said(model, said):
    freeze(model, ["backbone", "heads.cls"])
    assert "task 'cls' is frozen; the backbone is frozen too, so its batches train nothing" in said.messages[0]
    step(model)  # its loss has nothing to differentiate and must not stop the step


@pytest.mark.parametrize(
    "part,nearest",
    [("backbone.stage.0", "backbone.stages.0"), ("backbone.stages.7", "backbone.stages"), ("heads.sge", "heads.seg")],
)
def test_a_name_that_is_no_part_is_refused_with_the_nearest(model, part, nearest):
    with pytest.raises(ValueError, match=rf"train\.freeze: '{part}' is no part.*did you mean '{nearest}[.\d]*'\?"):
        freeze(model, ["heads.seg", part])
    assert not any(p.stop_gradient for n, p in model.named_parameters() if not n.endswith(("_mean", "_variance")))


def test_freezing_everything_is_refused(model):
    with pytest.raises(ValueError, match="every parameter of the model would be frozen"):
        freeze(model, ["backbone", "heads"])
