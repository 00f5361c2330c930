"""AdamW's step and the moving average by numba equal Paddle's operators."""

import numpy as np
import paddle
import pytest

from ppmtl.train import optim, precision

pytest.importorskip("numba")
SHAPES = ([64, 33], [7], [65, 16], [1, 5, 1, 1])


def make(kind):
    paddle.seed(0)
    parameters = [paddle.create_parameter(shape, "float32") for shape in SHAPES]
    groups = [
        {"params": parameters[:2], "learning_rate": 0.5, "weight_decay": 0.05},
        {"params": parameters[2:], "learning_rate": 1.0, "weight_decay": 0.0},
    ]
    return parameters, kind(1e-3, 0.9, 0.999, 1e-8, parameters=groups)


def test_twenty_steps_equal_paddles_also_where_a_gradient_is_missing(monkeypatch):
    (ours, fused), (reference, plain) = make(optim._AdamW), make(paddle.optimizer.AdamW)
    for a, b in zip(ours, reference, strict=True):
        a.set_value(b)
    rng = np.random.default_rng(0)
    calls = []
    operator = paddle._C_ops.adamw_
    for step in range(20):
        for number, pair in enumerate(zip(ours, reference, strict=True)):
            gradient = rng.standard_normal(SHAPES[number]).astype(np.float32)
            for parameter in pair:
                parameter.clear_gradient(False)
                if not (number == 3 and step % 3 == 1):
                    parameter.grad = paddle.to_tensor(gradient)
        plain.set_lr(1e-3 * (step + 1))
        fused.set_lr(1e-3 * (step + 1))
        plain.step()
        with monkeypatch.context() as patch:
            patch.setattr(paddle.optimizer.adamw._C_ops, "adamw_", lambda *a: calls.append(1) or operator(*a))
            fused.step()
    assert len(calls) == len(SHAPES)  # of the first step, which makes the moments
    for a, b in zip(ours, reference, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-6 * float(b.abs().max()))
        for name, moments in fused._accumulators.items():
            theirs = plain._accumulators[name][b.name]
            np.testing.assert_allclose(moments[a.name].numpy(), theirs.numpy(), rtol=1e-5, atol=1e-7)


def test_the_moving_average_has_the_bits_of_paddles_operators(monkeypatch):
    values = {f"{n}": paddle.randn(shape) for n, shape in enumerate(SHAPES)} | {"count": paddle.to_tensor([3])}
    results = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(precision, "numba_computes", lambda _: False)
        average = precision.ExponentialMovingAverage(lambda: values, 0.99)
        for name, start in average.average.items():
            start.set_value(start * 2 if name != "count" else start + 4)
        for step in (0, 5, 2000):
            average.update(step)
        results.append({name: value.numpy() for name, value in average.average.items()})
    for name in values:
        np.testing.assert_array_equal(results[0][name], results[1][name])
