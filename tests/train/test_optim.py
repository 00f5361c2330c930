"""Schedule, groups, clipping and optimizer state."""

import json
import logging
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from ppmtl.config.settings import OptimizerSettings
from ppmtl.models.backbones.convnext import ConvNeXt
from ppmtl.train.optim import (
    build_optimizer,
    clip_gradients,
    clip_task,
    learning_rate_at,
    load_optimizer_state,
    optimizer_state,
    scaled_learning_rate,
)

SCHEDULES = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedule.json").read_text())["cases"]


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: f"T{c['T_max']}-eta{c['eta_min']}")
def test_the_schedule_equals_paddles(case):
    settings = OptimizerSettings(
        learning_rate=case["base_lr"], warmup_steps=case["warmup"], min_learning_rate=case["eta_min"]
    )
    for step, expected in case["lr"].items():
        assert learning_rate_at(int(step), settings, case["T_max"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mode,expected", [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_the_rate_is_scaled_to_the_processes_only_when_asked_and_said_once(mode, expected, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ppmtl"), "propagate", True)
    settings = OptimizerSettings(learning_rate=0.1, min_learning_rate=1e-3, scale_lr=mode)
    values = scaled_learning_rate(settings, 4)
    # scale_lr goes with the rate: a resumed run reads the saved config, and must not scale a second time
    scaled = {"optimizer.learning_rate": pytest.approx(expected), "optimizer.scale_lr": "none"}
    assert values == ({} if mode == "none" else scaled)
    assert len(caplog.records) == (mode != "none")


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.heads = nn.Linear(4, 2)

    def forward(self, x):
        return self.heads(self.backbone(x))


class DeepNet(nn.Layer):
    """A real backbone: four stages of 1, 1, 2 and 1 blocks behind a stem, so five blocks and six depths."""

    def __init__(self):
        super().__init__()
        self.backbone = ConvNeXt(depths=(1, 1, 2, 1), dims=(4, 6, 8, 10), layer_scale_init=1.0)
        self.heads = nn.Linear(10, 2)


def named(model):
    return dict(model.named_parameters())


def train(model, optimizer, steps, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        model(paddle.to_tensor(rng.standard_normal((5, 3)).astype("float32"))).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()


def distances(model, settings, gradient=1.0, **kwargs):
    """Returns {name: how far one step with the same gradient everywhere moved it}; AdamW's first step is its rate."""
    before = {n: p.numpy().copy() for n, p in model.named_parameters()}
    optimizer = build_optimizer(model, settings, **kwargs)
    for parameter in model.parameters():
        if not parameter.stop_gradient:
            parameter.grad = paddle.full_like(parameter, gradient)
    optimizer.step()
    return {n: float(np.abs(p.numpy() - before[n]).max()) for n, p in model.named_parameters()}


def test_optimizer_state_moves_to_a_model_built_later_in_the_same_process():
    settings = OptimizerSettings(learning_rate=0.1)
    first = Net()
    train(first, before := build_optimizer(first, settings), 3)
    second = Net()  # Paddle's generated names differ now: linear_0 became linear_2
    second.set_state_dict(first.state_dict())
    load_optimizer_state(
        named(second), after := build_optimizer(second, settings), optimizer_state(named(first), before)
    )
    train(first, before, 3, seed=1)
    train(second, after, 3, seed=1)
    for name, value in first.state_dict().items():
        assert np.array_equal(value.numpy(), second.state_dict()[name].numpy()), name


def test_a_second_optimizer_of_the_same_model_takes_the_state_of_the_first():
    """Paddle calls its moments moment1_1, not moment1_0, and would stop at its first step."""
    settings = OptimizerSettings(learning_rate=0.1)
    model = Net()
    train(model, first := build_optimizer(model, settings), 2)
    weights, state = {n: v.numpy() for n, v in model.state_dict().items()}, optimizer_state(named(model), first)
    train(model, first, 2, seed=1)
    expected = {n: v.numpy() for n, v in model.state_dict().items()}
    model.set_state_dict(weights)
    load_optimizer_state(named(model), second := build_optimizer(model, settings), state)
    assert sorted(optimizer_state(named(model), second)) == sorted(state)
    train(model, second, 2, seed=1)
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), expected[name]), name


def test_state_saved_under_paddles_own_moment_names_is_still_read():
    model = Net()
    train(model, optimizer := build_optimizer(model, OptimizerSettings()), 2)
    state = optimizer_state(named(model), optimizer)
    old = {f"{key}_0": value for key, value in state.items()}
    load_optimizer_state(named(model), fresh := build_optimizer(model, OptimizerSettings()), old)
    again = optimizer_state(named(model), fresh)
    assert all(np.array_equal(again[key], value) for key, value in state.items())


def test_a_parameter_that_never_got_a_gradient_does_not_stop_a_resume():
    """With --tasks cls no head reads the finer levels, and their output norms have no moments."""

    class Unused(Net):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    model = Unused()
    train(model, optimizer := build_optimizer(model, OptimizerSettings()), 1)
    state = optimizer_state(named(model), optimizer)
    load_optimizer_state(named(model), again := build_optimizer(model, OptimizerSettings()), state)
    assert sorted(optimizer_state(named(model), again)) == sorted(state)  # still untouched, not zeros
    with pytest.raises(ValueError, match="1 of its parameters are missing"):
        load_optimizer_state(named(model), again, {k: v for k, v in state.items() if not k.startswith("spare.bias")})


def test_state_of_another_model_is_refused():
    model = Net()
    train(model, optimizer := build_optimizer(model, OptimizerSettings()), 1)
    state = {k.replace("heads", "necks"): v for k, v in optimizer_state(named(model), optimizer).items()}
    with pytest.raises(ValueError, match="another model"):
        load_optimizer_state(named(model), optimizer, state)


def test_state_of_a_run_with_other_frozen_parts_is_refused():
    model = Net()
    train(model, optimizer := build_optimizer(model, OptimizerSettings()), 1)
    state = optimizer_state(named(model), optimizer)
    model.backbone.weight.stop_gradient = True
    with pytest.raises(ValueError, match=r"other parts frozen.*1 are unknown \['backbone.weight'\]"):
        load_optimizer_state(named(model), build_optimizer(model, OptimizerSettings()), state)


def test_master_weights_of_a_low_precision_model_round_trip_under_structured_names():
    """No step is made: the CPU has no low-precision AdamW kernel. Names and values are what is tested."""
    settings, models = OptimizerSettings(), [Net().to(dtype="bfloat16") for _ in range(2)]
    optimizers = [build_optimizer(model, settings) for model in models]
    for optimizer in optimizers:
        optimizer._multi_precision = True  # as paddle.amp.decorate sets it
    block, rng = paddle.base.framework.default_main_program().global_block(), np.random.default_rng(0)
    optimizers[0]._create_accumulators(block, models[0].parameters()[:2])
    state = optimizer_state(named(models[0]), optimizers[0])
    assert {key.partition("|")[2] for key in state if key.startswith("backbone")} == {
        "beta1_pow_acc", "beta2_pow_acc", "master_weight", "moment1", "moment2"
    }  # fmt: skip
    assert sorted(key for key in state if key.startswith("heads")) == ["heads.bias|untouched", "heads.weight|untouched"]
    state = {k: rng.random(v.shape, np.float32) if v.size else v for k, v in state.items()}
    load_optimizer_state(named(models[1]), optimizers[1], state)
    again = optimizer_state(named(models[1]), optimizers[1])
    assert sorted(again) == sorted(state)
    assert all(again[key].dtype == np.float32 and np.array_equal(again[key], value) for key, value in state.items())
    with pytest.raises(ValueError, match=r"holds .*'master_weight'.* this run needs .*same train\.amp"):
        load_optimizer_state(named(net := Net()), build_optimizer(net, settings), state)


@pytest.mark.parametrize("shape", [[4], [1, 4, 1, 1], [1]])
def test_vectors_are_not_decayed_unless_asked_however_many_dimensions_they_have(shape):
    model = Net()
    model.scale = model.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
    for decay_1d, expected in ((False, 1.0), (True, 0.5)):
        distances(model, OptimizerSettings(learning_rate=1.0, weight_decay=0.5, decay_1d=decay_1d), gradient=0.0)
        assert model.scale.numpy() == pytest.approx(np.full(shape, expected))


def test_parts_named_in_no_decay_are_not_decayed():
    model = Net()
    moved = distances(
        model, OptimizerSettings(learning_rate=1.0, weight_decay=0.5, no_decay=("backbone",)), gradient=0.0
    )
    assert moved["backbone.weight"] == 0
    assert moved["heads.weight"] > 0


@pytest.mark.parametrize(("entry", "nearest"), [("head", "heads"), ("backbone.wieght", "backbone.weight")])
@pytest.mark.parametrize(
    ("key", "value"),
    [("no_decay", lambda e: (e,)), ("multipliers", lambda e: {e: 0.5})],
    ids=["no_decay", "multipliers"],
)
def test_an_entry_that_matches_no_part_is_refused_with_the_nearest_name(key, value, entry, nearest):
    with pytest.raises(ValueError, match=rf"optimizer\.{key}: '{entry}' is no part .* did you mean '{nearest}'\?"):
        build_optimizer(Net(), OptimizerSettings(**{key: value(entry)}))


def test_the_multiplier_of_the_longest_named_part_counts():
    multipliers = {"backbone.weight": 0.5, "backbone": 0.1}
    moved = distances(Net(), OptimizerSettings(learning_rate=0.1, weight_decay=0.0, multipliers=multipliers))
    assert moved["heads.weight"] == pytest.approx(0.1, rel=1e-3)  # not named
    assert moved["backbone.bias"] == pytest.approx(0.01, rel=1e-3)
    assert moved["backbone.weight"] == pytest.approx(0.05, rel=1e-3)  # not .005


def test_a_star_in_a_part_stands_for_one_word_and_a_part_by_name_counts_more():
    multipliers = {"backbone": 0.5, "backbone.stages.*.0": 0.1, "backbone.stages.2.0": 0.2}
    moved = distances(DeepNet(), OptimizerSettings(learning_rate=0.1, weight_decay=0.0, multipliers=multipliers))
    for name, factor in (("stages.3.0.gamma", 0.1), ("stages.2.0.gamma", 0.2), ("stages.2.1.gamma", 0.5)):
        assert moved[f"backbone.{name}"] == pytest.approx(0.1 * factor, rel=1e-2), name
    with pytest.raises(ValueError, match=r"'backbone\.\*\.gone' is no part"):
        build_optimizer(Net(), OptimizerSettings(no_decay=("backbone.*.gone",)))


def test_layer_decay_slows_every_block_more_the_nearer_it_is_to_the_input():
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.0, layer_decay=0.5, multipliers={"backbone": 0.5})
    moved = distances(DeepNet(), settings)
    expected = {
        "heads.weight": 0,  # halvings
        "backbone.norm3.weight": 1, "backbone.stages.3.0.gamma": 1, "backbone.downsample_layers.3.1.weight": 1,
        "backbone.stages.2.1.dwconv.weight": 2, "backbone.norm2.bias": 2, "backbone.stages.2.0.gamma": 3,
        "backbone.downsample_layers.2.0.weight": 3, "backbone.stages.1.0.gamma": 4, "backbone.stages.0.0.gamma": 5,
        "backbone.downsample_layers.0.0.weight": 6,
    }  # fmt: skip
    for name, halvings in expected.items():
        factor = 0.5 * 0.5**halvings if name.startswith("backbone") else 1.0
        assert moved[name] == pytest.approx(0.1 * factor, rel=1e-2), name


def test_layer_decay_needs_a_backbone_that_knows_its_depths():
    model = DeepNet()
    model.backbone.num_depths = None
    with pytest.raises(ValueError, match=r"layer_decay: ConvNeXt does not say how deep .*optimizer\.multipliers"):
        build_optimizer(model, OptimizerSettings(layer_decay=0.9))


def test_extra_parameters_are_trained_at_the_full_rate_without_decay_and_saved_under_their_name():
    model, balance = Net(), paddle.create_parameter([2, 2], "float32")
    extra = {"balance.log_variance": balance}
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.5, decay_1d=True, multipliers={"backbone": 0.1})
    optimizer = build_optimizer(model, settings, extra)
    balance.set_value(paddle.ones([2, 2]))
    balance.grad = paddle.ones([2, 2])
    optimizer.step()
    assert balance.numpy() == pytest.approx(np.full((2, 2), 0.9), rel=1e-4)
    state = optimizer_state(named(model) | extra, optimizer)
    assert state["balance.log_variance|moment1"] == pytest.approx(np.full((2, 2), 0.1))
    load_optimizer_state(named(model) | extra, build_optimizer(model, settings, extra), state)


def test_frozen_parameters_are_in_no_group_and_with_nothing_left_it_is_an_error():
    model = Net()
    model.backbone.weight.stop_gradient = True
    moved = distances(model, OptimizerSettings(learning_rate=0.1, weight_decay=0.5))
    assert moved["backbone.weight"] == 0
    assert moved["backbone.bias"] > 0
    for parameter in model.parameters():
        parameter.stop_gradient = True
    with pytest.raises(ValueError, match=r"train\.freeze: every parameter of the model is frozen"):
        build_optimizer(model, OptimizerSettings())


def test_clipping_scales_to_the_norm_and_reports_what_it_was():
    parameters = [paddle.create_parameter([2], "float32"), paddle.create_parameter([1], "float32")]
    (parameters[0] * paddle.to_tensor([3.0, 0.0])).sum().backward()
    (parameters[1] * 4.0).sum().backward()
    assert clip_gradients(parameters, 10.0) == pytest.approx(5.0)
    assert parameters[1].grad.item() == pytest.approx(4.0)
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    assert parameters[1].grad.item() == pytest.approx(0.8, rel=1e-4)


def test_a_tasks_gradients_are_clipped_together_and_missing_ones_skipped():
    gradients = [paddle.to_tensor([[3.0, 0.0]]), None, paddle.to_tensor([4.0])]
    assert clip_task(gradients, None) == pytest.approx(5.0)
    assert clip_task(gradients, 2.5) == pytest.approx(5.0)
    assert gradients[0].numpy() == pytest.approx(np.array([[1.5, 0.0]]), rel=1e-4)
    assert gradients[2].item() == pytest.approx(2.0, rel=1e-4)
    assert clip_task([None], 1.0) == 0.0
