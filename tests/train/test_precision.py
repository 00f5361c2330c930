"""Mixed precision: nothing without it, refused on CPU, one scale for all tasks, exact resume, float32 behind O2.

Paddle computes in low precision on GPU only. Its scaler and its casts of weights are run here on CPU for real, by telling
them that they stand on a GPU; low-precision arithmetic itself is not.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn

from ppmtl.config.settings import AmpSettings, OptimizerSettings
from ppmtl.models.heads.cbam_fc import CBAMFC
from ppmtl.models.heads.upernet import UPerNet
from ppmtl.models.heads.yolov5 import YOLOv5
from ppmtl.structures import FeatureSpec
from ppmtl.train import optim, precision
from ppmtl.train.optim import build_optimizer, clip_gradients, load_optimizer_state, optimizer_state
from ppmtl.train.precision import ExponentialMovingAverage, Precision

SETTINGS = OptimizerSettings(learning_rate=0.1)
FLOAT16 = AmpSettings(dtype="float16", initial_scale=1024.0)


class Net(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1D(4))
        self.heads = nn.Linear(4, 2)
        self.register_buffer("offset", paddle.full([3], 0.1), persistable=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.heads(self.backbone(x + self.offset))


def parts(settings: AmpSettings | None) -> tuple[Net, paddle.optimizer.AdamW, Precision]:
    paddle.seed(0)
    model = Net()
    optimizer = build_optimizer(model, SETTINGS)
    return model, optimizer, Precision(settings, model, optimizer)


def two_tasks(model: Net, seed: int) -> list[paddle.Tensor]:
    out = model(paddle.to_tensor(np.random.default_rng(seed).standard_normal((5, 3)).astype(np.float32)))
    return [out[:, 0].square().mean(), out[:, 1].exp().mean()]


def step(
    model: Net, optimizer: paddle.optimizer.AdamW, precision: Precision, seed: int, *, overflow: bool = False
) -> float:
    with precision.autocast():
        losses = two_tasks(model, seed)
    for loss in losses:
        precision.backward(loss, retain_graph=loss is not losses[-1])
    if overflow:
        model.heads.bias.grad = paddle.full_like(model.heads.bias, math.inf)
    precision.unscale()
    norm = clip_gradients(model.parameters(), 0.5)
    precision.step()
    optimizer.clear_grad()
    return norm


def values(model: Net) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not np.array_equal(left[name], right[name])] == []


@pytest.fixture
def pretended_gpu(monkeypatch) -> None:
    gpu = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False)
    for name in ("auto_cast", "grad_scaler"):
        tracer = SimpleNamespace(_expected_place=gpu)
        monkeypatch.setattr(sys.modules[f"paddle.amp.{name}"], "_dygraph_tracer", lambda tracer=tracer: tracer)
    monkeypatch.setattr(sys.modules["paddle.amp.auto_cast"], "_is_gpu_bfloat16_supported", lambda: True)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    for module in (optim, precision):
        monkeypatch.setattr(module, "numba_computes", lambda _: False)
    for dtype in ("float16", "bfloat16"):
        monkeypatch.setattr(paddle.amp, f"is_{dtype}_supported", lambda: True)

    @contextlib.contextmanager
    def auto_cast(*, level: str, dtype: str):
        assert level in ("O1", "O2")
        paddle.amp.auto_cast.seen.append(dtype)
        sys.modules["paddle.amp.auto_cast"].amp_global_state().amp_dtype = dtype  # what the scaler looks at
        yield

    auto_cast.seen = []
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)


def test_without_settings_every_method_does_what_the_loop_did_before():
    plain, optimizer, _ = parts(None)
    other, its, precision = parts(None)
    for seed in range(3):
        first, second = two_tasks(plain, seed)
        first.backward(retain_graph=True)
        second.backward()
        clip_gradients(plain.parameters(), 0.5)
        optimizer.step()
        optimizer.clear_grad()
        step(other, its, precision, seed)
    assert_same(values(plain), values(other))
    assert precision.scale == 1.0
    assert precision.state() == {}
    assert not precision.found_nonfinite
    assert all(value is other.state_dict()[name] for name, value in precision.weights().items())


@pytest.mark.parametrize("settings", [FLOAT16, AmpSettings(level="O2")], ids=lambda s: s.dtype)
def test_the_cpu_is_refused_with_the_reason(settings):
    with pytest.raises(
        ValueError, match=r"train\.amp: .* on cpu, where Paddle accepts the switches and computes in float32"
    ):
        parts(settings)


@pytest.mark.usefixtures("pretended_gpu")
def test_a_gpu_without_the_type_is_refused(monkeypatch):
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    monkeypatch.setattr(paddle.device.cuda, "get_device_name", lambda: "Tesla V100")
    with pytest.raises(ValueError, match=r"bfloat16 is not supported by Tesla V100 .* train\.amp\.dtype=float16"):
        parts(AmpSettings())


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("settings", [FLOAT16, AmpSettings(dtype="bfloat16")], ids=lambda s: s.dtype)
def test_a_step_with_one_scale_for_all_tasks_equals_the_step_without(settings):
    """A power of two costs no digit, so the gradients come back bit for bit and the clip sees their real norm."""
    (plain, *its), (scaled, *others) = parts(None), parts(settings)
    for seed in range(3):
        assert step(plain, *its, seed) == step(scaled, *others, seed)
    assert_same(values(plain), values(scaled))
    assert paddle.amp.auto_cast.seen == [settings.dtype] * 3
    assert others[1].scale == (1024.0 if settings is FLOAT16 else 1.0)


@pytest.mark.usefixtures("pretended_gpu")
def test_gradients_carry_the_scale_until_they_are_unscaled():
    model, _, precision = parts(FLOAT16)
    with precision.autocast():
        loss = two_tasks(model, 0)[0]
    precision.backward(loss)
    before = model.heads.bias.grad.numpy().copy()
    precision.unscale()
    np.testing.assert_array_equal(model.heads.bias.grad.numpy() * precision.scale, before)


@pytest.mark.usefixtures("pretended_gpu")
def test_an_overflow_skips_the_step_and_halves_the_scale():
    model, optimizer, precision = parts(FLOAT16)
    step(model, optimizer, precision, 0)
    weights = {name: p.numpy().copy() for name, p in model.named_parameters() if not p.stop_gradient}
    moments = optimizer_state(dict(model.named_parameters()), optimizer)
    step(model, optimizer, precision, 1, overflow=True)
    assert precision.found_nonfinite
    assert_same(weights, {name: p.numpy() for name, p in model.named_parameters() if not p.stop_gradient})
    assert_same(moments, optimizer_state(dict(model.named_parameters()), optimizer))
    assert precision.state() == {"scale": 512.0, "good_steps": 0, "bad_steps": 0}
    step(model, optimizer, precision, 2)
    assert not precision.found_nonfinite
    assert not np.array_equal(weights["heads.weight"], model.heads.weight.numpy())


@pytest.mark.usefixtures("pretended_gpu")
def test_the_scaler_resumes_exactly(monkeypatch):
    monkeypatch.setattr(
        paddle.amp.GradScaler.__init__, "__defaults__", (True, 2.0**16, 2.0, 0.5, 4, 1, True)
    )  # 4 steps
    model, optimizer, precision = parts(FLOAT16)
    for seed in range(3):
        step(model, optimizer, precision, seed)
    again, its, resumed = parts(FLOAT16)
    again.set_state_dict(values(model))
    load_optimizer_state(
        dict(again.named_parameters()), its, optimizer_state(dict(model.named_parameters()), optimizer)
    )
    resumed.load(json.loads(json.dumps(precision.state())))
    scales = []
    for seed, overflow in ((3, False), (4, True), (5, False)):
        step(model, optimizer, precision, seed, overflow=overflow)
        step(again, its, resumed, seed, overflow=overflow)
        scales.append(resumed.scale)
    assert scales == [2048.0, 1024.0, 1024.0]  # the fourth good step, counted across the interruption
    assert resumed.state() == precision.state()
    assert_same(values(model), values(again))
    resumed.load({})  # of a run without it: stays as it is
    assert resumed.state() == precision.state()


@pytest.fixture
def lowered(pretended_gpu) -> tuple[dict[str, np.ndarray], Net, paddle.optimizer.AdamW, Precision]:  # noqa: ARG001
    paddle.seed(0)
    model = Net()
    model.heads.weight.stop_gradient = True  # frozen
    before = values(model)
    optimizer = build_optimizer(model, SETTINGS)
    return before, model, optimizer, Precision(AmpSettings(level="O2"), model, optimizer)


def test_o2_keeps_every_digit_of_the_initial_weights_frozen_ones_too(lowered):
    before, model, _, precision = lowered
    assert model.backbone[0].weight.dtype == model.heads.weight.dtype == paddle.bfloat16
    assert (
        model.backbone[1].weight.dtype == model.offset.dtype == paddle.float32
    )  # the norm, and the model's own buffer
    assert {str(value.dtype) for value in precision.weights().values()} == {"paddle.float32"}
    assert_same({name: value.numpy() for name, value in precision.weights().items()}, before)


def test_o2_master_weights_are_the_optimizers_and_come_back_on_resume(lowered):
    before, model, optimizer, precision = lowered
    trained = [p for p in model.parameters() if not p.stop_gradient]
    optimizer._create_accumulators(paddle.base.framework.default_main_program().global_block(), trained)
    master = optimizer.state_dict()["master_weights"][model.backbone[0].weight.name]
    assert precision.weights()["backbone.0.weight"] is master
    master.set_value(paddle.full_like(master, 1.23456789))  # as a step on GPU would
    state = optimizer_state(dict(model.named_parameters()), optimizer)
    assert state["backbone.0.weight|master_weight"][0, 0] == np.float32(1.23456789)
    assert "heads.weight|master_weight" not in state
    load_optimizer_state(dict(model.named_parameters()), optimizer, state | {
        "backbone.0.weight|master_weight": before["backbone.0.weight"]
    })  # fmt: skip
    np.testing.assert_array_equal(precision.weights()["backbone.0.weight"].numpy(), before["backbone.0.weight"])


def test_o2_weights_are_set_in_full_and_rounded_into_the_model(lowered):
    before, model, _, precision = lowered
    arrays = {name: value + np.float32(1 / 3) for name, value in before.items()}
    precision.set_weights(arrays | {"heads.of_another_task": np.zeros(1)})
    assert_same({name: value.numpy() for name, value in precision.weights().items()}, arrays)
    rounded = model.heads.weight.astype("float32").numpy()
    np.testing.assert_allclose(rounded, arrays["heads.weight"], rtol=2**-8)
    assert not np.array_equal(rounded, arrays["heads.weight"])


def test_the_average_follows_float32_weights_and_leaves_what_does_not_move_bit_for_bit(lowered):
    before, _, _, precision = lowered
    ema = ExponentialMovingAverage(precision.weights, 0.9)
    moved = precision.weights()["backbone.0.weight"]
    for index in range(50):
        moved.set_value(moved + 1e-3)  # far below bfloat16's steps
        ema.update(1000 + index)
    state = {name: value.numpy() for name, value in ema.average.items()}
    moved_on = "backbone.0.weight"
    assert [name for name in before if not np.array_equal(state[name], before[name])] == [moved_on]
    expected = before["backbone.0.weight"] + 1e-3 * (50 - 9 * (1 - 0.9**50))
    np.testing.assert_allclose(state["backbone.0.weight"], expected, rtol=1e-4, atol=1e-5)
    again = ExponentialMovingAverage(precision.weights, 0.9)
    again.load(state)
    assert_same({name: value.numpy() for name, value in again.average.items()}, state)


def low_precision_losses(dtype: str) -> dict[str, paddle.Tensor]:
    """Returns every head's loss terms for outputs of its last layer that are ``dtype``, as autocast leaves them."""
    paddle.seed(0)
    specs = {f"c{level}": FeatureSpec(2 * level, 2**level) for level in (2, 3, 4, 5)}
    features = {n: paddle.rand([2, s.channels, 64 // s.stride, 64 // s.stride]) for n, s in specs.items()}
    low = lambda _, __, output: output.astype(dtype).astype("float32" if dtype == "float32" else dtype)  # noqa: E731
    seg, cls, det = UPerNet(specs, 3, channels=8), CBAMFC(specs, 5, channels=8), YOLOv5(specs, 2)
    for layer in (seg.classifier, seg.aux[-1], cls.fc, *det.outputs):
        layer.register_forward_post_hook(low)
    box = paddle.to_tensor([[0.0, 1, 0.5, 0.5, 0.3, 0.3]])
    terms = {
        "seg": seg(features, (64, 64), {"label_map": paddle.zeros([2, 64, 64], "int64")}),
        "cls": cls(features, (64, 64), {"class_index": paddle.to_tensor([1, 2])}),
        "det": det(
            features,
            (64, 64),
            {"boxes": box, "supervised": paddle.ones([2])},
        ),
    }
    return {f"{task}.{name}": value for task, of_task in terms.items() for name, value in of_task.items()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_are_float32_when_the_last_layers_answer_in_less(dtype):
    losses, exact = low_precision_losses(dtype), low_precision_losses("float32")
    assert len(losses) == 6
    for name, value in losses.items():
        assert value.dtype == paddle.float32, name
        assert float(value) == pytest.approx(float(exact[name]), rel=0.01), name
