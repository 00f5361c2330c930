"""Schedule, groups, clipping and optimizer state."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from ppmtl.engine.optim import build_optimizer, clip_gradients, learning_rate_at, load_optimizer_state, optimizer_state
from ppmtl.run import OptimizerSettings

SCHEDULES = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedule.json").read_text())["cases"]


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: f"T{c['T_max']}-eta{c['eta_min']}")
def test_the_schedule_equals_paddles(case):
    settings = OptimizerSettings(
        learning_rate=case["base_lr"], warmup_steps=case["warmup"], min_learning_rate=case["eta_min"]
    )
    for step, expected in case["lr"].items():
        assert learning_rate_at(int(step), settings, case["T_max"]) == pytest.approx(expected, abs=1e-12)


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.heads = nn.Linear(4, 2)

    def forward(self, x):
        return self.heads(self.backbone(x))


def train(model, optimizer, steps, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        model(paddle.to_tensor(rng.standard_normal((5, 3)).astype("float32"))).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()


def test_optimizer_state_moves_to_a_model_built_later_in_the_same_process():
    settings = OptimizerSettings(learning_rate=0.1)
    first = Net()
    train(first, before := build_optimizer(first, settings), 3)
    second = Net()  # Paddle's generated names differ now: linear_0 became linear_2
    second.set_state_dict(first.state_dict())
    load_optimizer_state(second, after := build_optimizer(second, settings), optimizer_state(first, before))
    train(first, before, 3, seed=1)
    train(second, after, 3, seed=1)
    for name, value in first.state_dict().items():
        assert np.array_equal(value.numpy(), second.state_dict()[name].numpy()), name


def test_a_parameter_that_never_got_a_gradient_does_not_stop_a_resume():
    """With --tasks cls no head reads the finer levels, and their output norms have no moments."""

    class Unused(Net):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    model = Unused()
    train(model, optimizer := build_optimizer(model, OptimizerSettings()), 1)
    state = optimizer_state(model, optimizer)
    load_optimizer_state(model, build_optimizer(model, OptimizerSettings()), state)
    with pytest.raises(ValueError, match="1 of its parameters are missing"):
        load_optimizer_state(model, optimizer, {k: v for k, v in state.items() if not k.startswith("spare.bias")})


def test_state_of_another_model_is_refused():
    model = Net()
    train(model, optimizer := build_optimizer(model, OptimizerSettings()), 1)
    state = {k.replace("heads", "necks"): v for k, v in optimizer_state(model, optimizer).items()}
    with pytest.raises(ValueError, match="another model"):
        load_optimizer_state(model, optimizer, state)


def test_one_dimensional_parameters_are_not_decayed_unless_asked():
    model = Net()
    model.backbone.bias.set_value(paddle.ones([4]))
    for decay_1d, expected in ((False, 1.0), (True, 0.5)):
        optimizer = build_optimizer(model, OptimizerSettings(learning_rate=1.0, weight_decay=0.5, decay_1d=decay_1d))
        for p in model.parameters():
            p.clear_gradient()
        (model(paddle.ones([1, 3])) * 0.0).sum().backward()
        optimizer.step()
        assert model.backbone.bias.numpy() == pytest.approx(np.full(4, expected))


def test_the_backbones_learning_rate_is_multiplied():
    model = Net()
    before = {n: p.numpy().copy() for n, p in model.named_parameters()}
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.0, backbone_lr_multiplier=0.1)
    train(model, build_optimizer(model, settings), 1)
    moved = {n: np.abs(p.numpy() - before[n]).max() for n, p in model.named_parameters()}
    assert moved["heads.weight"] == pytest.approx(0.1, rel=1e-3)
    assert moved["backbone.weight"] == pytest.approx(0.01, rel=1e-3)


def test_clipping_scales_to_the_norm_and_reports_what_it_was():
    parameters = [paddle.create_parameter([2], "float32"), paddle.create_parameter([1], "float32")]
    (parameters[0] * paddle.to_tensor([3.0, 0.0])).sum().backward()
    (parameters[1] * 4.0).sum().backward()
    assert clip_gradients(parameters, 10.0) == pytest.approx(5.0)
    assert parameters[1].grad.item() == pytest.approx(4.0)
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    assert parameters[1].grad.item() == pytest.approx(0.8, rel=1e-4)
