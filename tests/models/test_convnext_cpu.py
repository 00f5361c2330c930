"""ConvNeXt's training pass by numba: Paddle's gradients, the same bits for any number of threads, and when it is taken."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppmtl.config import ConfigError
from ppmtl.models import layers
from ppmtl.models.backbones import convnext
from ppmtl.models.backbones.convnext import ConvNeXt

pytest.importorskip("numba")
import numba

import ppmtl.models._cpu_kernels as kernels
from ppmtl.models.backbones import _convnext_cpu

SIZES = {  # arch or dims, depths, kernel size, input
    "demo": ((32, 64, 128, 256), (1, 1, 3, 1), 3, (4, 3, 64, 96)),
    "atto": ((40, 80, 160, 320), (2, 2, 6, 2), 7, (4, 3, 64, 64)),
    "tiny, shallow": ((96, 192, 384, 768), (1, 1, 2, 1), 7, (3, 3, 64, 64)),
    "large, one block a level": ((192, 384, 768, 1536), (1, 1, 1, 1), 7, (3, 3, 64, 64)),
    "5x5": ((16, 24, 32, 48), (1, 1, 1, 1), 5, (3, 3, 64, 96)),
    "odd channels and sizes": ((9, 17, 33, 49), (1, 2, 1, 1), 7, (3, 3, 75, 107)),
}


def build(dims=(8, 17, 24, 32), depths=(1, 2, 1, 1), kernel_size=3, **changes) -> ConvNeXt:
    paddle.seed(0)
    values = {"layer_scale_init": 0.5, "drop_path_rate": 0.3, "init": "fan_in", "kernels": "numba"} | changes
    net = ConvNeXt(dims=dims, depths=depths, kernel_size=kernel_size, **values)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1 and "gamma" not in name:  # biases start at 0, where an error in them would not show
            parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    net.train()
    return net


def images(shape=(3, 3, 64, 64)) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def learned(net: ConvNeXt, x: paddle.Tensor, backwards: int = 1) -> dict[str, np.ndarray]:
    """Outputs, gradients and the next random number of one training pass."""
    net.clear_gradients(set_to_zero=False)
    x = x.clone().detach()
    x.stop_gradient = False
    paddle.seed(3)
    features = net(x)
    loss = paddle.add_n([(f * paddle.cos(3 * f.detach())).sum() for f in features.values()])
    for left in reversed(range(backwards)):
        loss.backward(retain_graph=left > 0)
    found = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    more = {name: feature.numpy() for name, feature in features.items()}
    return found | more | {"x": x.grad.numpy(), "next random number": paddle.rand([1]).numpy()}


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not np.array_equal(a[name], b[name])] == []


def assert_close(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Elementwise to 1e-5 of the largest element; a gradient is 0 where drop-path took all images."""
    assert a.keys() == b.keys()
    assert sum(bool(value.any()) for value in b.values()) > 0.8 * len(b)
    assert [name for name in b if not np.abs(a[name] - b[name]).max() <= 1e-5 * np.abs(b[name]).max()] == []


@pytest.mark.parametrize("size", SIZES)
def test_outputs_gradients_and_drop_path_are_paddles(size):
    dims, depths, kernel_size, shape = SIZES[size]
    net, x = build(dims, depths, kernel_size), images(shape)
    fused = learned(net, x)
    net.kernels = "paddle"
    plain = learned(net, x)
    assert len(plain) > 60
    assert fused["next random number"] == plain["next random number"]  # drop-path drew as many
    assert_close(fused, plain)


def test_without_layer_scale_and_output_norms():
    net, x = build(layer_scale_init=None, output_norm=False), images()
    fused = learned(net, x)
    net.kernels = "paddle"
    assert_close(fused, learned(net, x))


def test_recomputing_changes_no_bit():
    net, x = build(), images()
    plain = learned(net, x)
    net.recompute = True
    assert_same_bits(learned(net, x), plain)


def test_a_second_backward_through_a_pass_is_refused_where_paddle_would_crash():
    net, x = build(), images()
    with pytest.raises(OSError, match="cannot go back twice"):
        learned(net, x, backwards=2)


def test_a_pass_that_is_announced_to_be_gone_back_through_twice_takes_paddles_operators():
    net, x = build(), images()
    net.single_backward = False
    once, twice = learned(net, x), learned(net, x, backwards=2)
    for name, parameter in net.named_parameters():
        np.testing.assert_array_equal(2 * once[name], twice[name], err_msg=name)
        assert parameter.grad is not None


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    net, x = build((33, 40, 48, 64)), images()
    used = []
    real = kernels._pool
    monkeypatch.setattr(kernels, "_pool", lambda threads, process: used.append(threads) or real(threads, process))
    found = {}
    for threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        found[threads] = learned(net, x)
    assert set(used) == {2, 3}
    assert_same_bits(found[1], found[2])
    assert_same_bits(found[1], found[3])


def test_frozen_parts_get_no_gradient_and_the_others_the_same_as_without():
    net, x = build(), images()
    everything, net = learned(net, x), build()
    frozen = ("downsample_layers.0", "stages.0", "stages.1.0.dwconv", "stages.1.1.gamma", "norm2.weight")
    for name, parameter in net.named_parameters():
        parameter.stop_gradient = name.startswith(frozen)
    some = learned(net, x)
    assert {name for name in everything if name not in some} == {n for n in everything if n.startswith(frozen)}
    assert_same_bits(some, {name: everything[name] for name in some})


def test_nothing_below_the_first_trained_parameter_is_differentiated():
    net = build(output_norm=False)
    for name, parameter in net.named_parameters():
        parameter.stop_gradient = not name.startswith(("downsample_layers.3", "stages.3"))
    features = net(images())
    assert {name: feature.stop_gradient for name, feature in features.items()} == {
        "c2": True, "c3": True, "c4": True, "c5": False
    }  # fmt: skip
    features["c5"].sum().backward()
    assert net.stages[2][0].gamma.grad is None
    assert net.stages[3][0].gamma.grad is not None


@pytest.fixture
def fused(monkeypatch) -> list[int]:
    """Counts the passes by numba."""
    passes: list[int] = []
    real = _convnext_cpu.levels
    monkeypatch.setattr(_convnext_cpu, "levels", lambda *a: passes.append(1) or real(*a))
    return passes


def test_only_float32_training_with_gradients_takes_it(fused):
    net, x = build(kernels="auto"), images()
    with paddle.no_grad():
        net(x)
    net.eval()
    net(x)
    net.train()
    net.kernels = "paddle"
    net(x)
    net.kernels = "auto"
    net.to(dtype="float64")
    net(x.astype("float64"))
    net.to(dtype="float32")
    assert fused == []
    net(x)
    assert fused == [1]


def test_a_graph_that_is_exported_never_holds_it(fused, tmp_path):
    net = build()  # in training mode, which no export uses
    spec = [paddle.static.InputSpec([None, 3, None, None], "float32")]
    paddle.jit.save(paddle.jit.to_static(net, full_graph=True), str(tmp_path / "net"), input_spec=spec)
    assert fused == []


def test_without_numba_auto_is_paddle_and_numba_an_error_that_helps(fused, monkeypatch):
    for module in (layers, convnext):
        monkeypatch.setattr(module, "has_numba", lambda: False)
    build(kernels="auto")(images())
    assert fused == []
    with pytest.raises(ConfigError, match=r"model.backbone.kernels: .*pip install -r requirements.txt"):
        build(kernels="numba")(images())


def test_numba_is_imported_by_the_first_training_pass_only():
    code = (
        "import sys, paddle; from ppmtl.models.backbones.convnext import ConvNeXt; "
        "net = ConvNeXt(dims=(4, 4, 4, 4), depths=(1, 1, 1, 1)); net.eval(); net(paddle.zeros([1, 3, 32, 32])); "
        "sys.exit('numba' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, check=False).returncode == 0


def test_compiling_is_logged_once_with_where_the_result_is_kept(monkeypatch, caplog):
    def triple(x: int) -> None:
        x * 3

    monkeypatch.setattr(kernels, "_kernels", [numba.njit(triple)])  # not cached, as where no folder can be written to
    monkeypatch.setattr(kernels.LOGGER, "propagate", True)
    with caplog.at_level(logging.INFO, "ppmtl"):
        kernels.prepare.__wrapped__()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("compiled the CPU kernels in")
    assert "NUMBA_CACHE_DIR" in caplog.messages[0]
    cached = numba.njit(cache=True)(kernels.add_parts.py_func)
    monkeypatch.setattr(kernels, "_kernels", [cached])
    cached.stats.cache_hits["as if it had been found"] = 1
    caplog.clear()
    kernels.prepare.__wrapped__()
    assert caplog.messages == []


@pytest.mark.parametrize("x", [-40.0, -9.0, -3.0, -0.5, 0.0, 0.5, 3.0, 40.0])
def test_gelu_and_its_slope_are_exact_to_float32(x):
    value = paddle.to_tensor([[x]], "float64", stop_gradient=False)
    expected = paddle.nn.functional.gelu(value)
    expected.backward()
    h, bias, g, slope = (paddle.to_tensor(v, "float32") for v in ([[x]], [0.0], [[0.0]], [[1.0]]))
    sums = paddle.empty([kernels.PARTS, 1])
    arguments = [t.data_ptr() for t in (h, bias, g, slope, sums)]
    kernels.run(kernels.gelu_backward, kernels.PARTS, *arguments, 1, 1)
    np.testing.assert_allclose(g.numpy(), expected.numpy(), rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(slope.numpy(), value.grad.numpy(), rtol=3e-7, atol=3e-7)


def test_not_a_number_stays_one():
    net, x = build(), images()
    x[0, 0, 0, 0] = float("nan")
    assert all(np.isnan(feature.numpy()[0]).any() for feature in net(x).values())
