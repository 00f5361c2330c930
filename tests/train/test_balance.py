"""The balancing methods against numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from ppmtl.config import ConfigError, ConfigTree, check
from ppmtl.config.settings import TrainSettings
from ppmtl.train.balance._base import inner_products, weighted_sum
from ppmtl.train.balance.dwa import Dwa
from ppmtl.train.balance.pcgrad import Pcgrad, projected_factors
from ppmtl.train.balance.tbgc import Tbgc
from ppmtl.train.balance.uncertainty import Uncertainty
from ppmtl.train.gradients import TaskGradients

TASKS = ("seg", "cls", "det")


def gradients(**of_tasks):
    """One vector per task, cut into a (2,) and a (rest, 1) parameter; None stays None."""

    def cut(vector):
        if vector is None:
            return [None, None]
        values = np.asarray(vector, "float32")
        return [paddle.to_tensor(values[:2]), paddle.to_tensor(values[2:, None])]

    return {task: cut(vector) for task, vector in of_tasks.items()}


def joined(result):
    return np.concatenate([g.numpy().ravel() for g in result])


# inner products and sums


def test_inner_products_are_those_of_the_joined_vectors_and_none_counts_as_zero():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 7)).astype("float32")
    given = gradients(**dict(zip(TASKS, vectors, strict=True)))
    np.testing.assert_allclose(inner_products(given).sum(axis=0), vectors @ vectors.T, rtol=1e-6)
    given["cls"][1] = None
    vectors[1, 2:] = 0
    np.testing.assert_allclose(inner_products(given).sum(axis=0), vectors @ vectors.T, rtol=1e-6)


def test_a_sum_with_factors_of_one_has_the_bits_of_adding_up():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(6).astype("float32") for _ in range(2))
    given = gradients(seg=a, det=b)
    np.testing.assert_array_equal(joined(weighted_sum(given, [1.0, 1.0])), a + b)
    np.testing.assert_array_equal(joined(given["seg"]), a)  # not added to in place
    assert weighted_sum(gradients(seg=None, det=None), [1.0, 2.0]) == [None, None]


# uncertainty


def test_uncertainty_has_the_analytic_gradients():
    balance = Uncertainty(TASKS, initial_log_variance=0.3)
    loss = paddle.to_tensor(2.5, stop_gradient=False)
    objective = balance.weigh("cls", loss)
    objective.backward()
    assert objective.item() == pytest.approx(math.exp(-0.3) * 2.5 + 0.3, rel=1e-6)
    assert loss.grad.item() == pytest.approx(math.exp(-0.3), rel=1e-6)
    assert balance.log_variances["cls"].grad.item() == pytest.approx(1 - math.exp(-0.3) * 2.5, rel=1e-6)
    assert balance.log_variances["seg"].grad is None


def test_uncertainty_settles_at_the_logarithm_of_a_constant_loss():
    balance = Uncertainty(TASKS)
    optimizer = paddle.optimizer.Adam(0.05, parameters=balance.parameters())
    losses = {"seg": 0.5, "cls": 1.0, "det": 6.0}
    for _ in range(300):
        paddle.add_n([balance.weigh(task, paddle.to_tensor(value)) for task, value in losses.items()]).backward()
        optimizer.step()
        optimizer.clear_grad()
    for task, value in losses.items():
        assert balance.log_variances[task].item() == pytest.approx(math.log(value), abs=1e-3)
        assert balance.factors()[task] == pytest.approx(1 / value, rel=2e-3)


# dynamic weight average


def run_epochs(balance, epochs, steps_per_epoch=4, start=0):
    """Feeds {task: epoch mean} per epoch, spread over its steps as mean -1, mean +1, ..."""
    step = start
    for means in epochs:
        for inside in range(steps_per_epoch):
            balance.after_step({t: m + (-1) ** inside for t, m in means.items()}, step, steps_per_epoch)
            step += 1


def test_dwa_weighs_by_the_ratio_of_the_last_two_epochs():
    balance = Dwa(TASKS, temperature=2.0)
    first, second = {"seg": 4.0, "cls": 2.0, "det": 10.0}, {"seg": 2.0, "cls": 2.0, "det": 15.0}
    run_epochs(balance, [first])
    assert balance.factors() == {"seg": 1, "cls": 1, "det": 1}  # one epoch has no ratio: weight 1 in the second too
    run_epochs(balance, [second])
    powers = [math.exp(r / 2) for r in (0.5, 1.0, 1.5)]
    expected = [3 * p / sum(powers) for p in powers]
    assert list(balance.factors().values()) == pytest.approx(expected, rel=1e-12)
    assert sum(balance.factors().values()) == pytest.approx(3)
    assert balance.weigh("det", paddle.to_tensor(2.0)).item() == pytest.approx(2 * expected[2], rel=1e-6)


def test_dwa_does_not_care_about_a_tasks_scale():
    plain, scaled = Dwa(TASKS), Dwa(TASKS)
    for epoch in ({"seg": 4.0, "cls": 2.0, "det": 9.0}, {"seg": 3.0, "cls": 1.9, "det": 8.0}):
        plain.after_step(epoch, 0, 1)
        scaled.after_step(epoch | {"cls": 50 * epoch["cls"]}, 0, 1)
    assert plain.factors() == pytest.approx(scaled.factors(), rel=1e-12)
    assert plain.factors()["cls"] > 1  # and it did weigh


def test_dwa_resumed_within_an_epoch_has_the_same_bits():
    epochs = [{"seg": 1 / 3, "det": 1e3}, {"seg": 0.21, "det": 9e2}, {"seg": 2, "det": 5}]
    through, before, after = Dwa(TASKS), Dwa(TASKS), Dwa(TASKS)
    steps = [{t: m / (k + 1) for t, m in means.items()} for means in epochs for k in range(4)]
    for step, losses in enumerate(steps):
        through.after_step(losses, step, 4)
    for step, losses in enumerate(steps[:6]):
        before.after_step(losses, step, 4)
    after.set_state_dict({name: value.numpy() for name, value in before.state_dict().items()})
    for step, losses in enumerate(steps[6:], start=6):
        after.after_step(losses, step, 4)
    assert through.factors() == after.factors() != Dwa(TASKS).factors()


def test_dwa_leaves_a_task_alone_that_had_no_loss_in_an_epoch():
    balance = Dwa(TASKS)
    balance.after_step({"seg": 1.0, "cls": 1.0}, 0, 1)
    balance.after_step({"seg": 1.0, "cls": 1.0, "det": 7.0}, 1, 1)
    assert balance.factors() == {"seg": 1, "cls": 1, "det": 1}
    balance.after_step({"seg": 1.0, "cls": 1.0}, 2, 1)
    assert balance.factors() == {"seg": 1, "cls": 1, "det": 1}


def test_dwa_survives_a_loss_that_explodes():
    balance = Dwa(TASKS, temperature=0.1)
    balance.after_step({"seg": 1e-6, "cls": 1.0, "det": 1.0}, 0, 1)
    balance.after_step({"seg": 1e6, "cls": 1.0, "det": 1.0}, 1, 1)
    assert list(balance.factors().values()) == [3, 0, 0]


# PCGrad


def pcgrad(seed=(1, 2), **of_tasks):
    return joined(Pcgrad(tuple(of_tasks)).combine(gradients(**of_tasks), seed))


def test_pcgrad_adds_up_tasks_that_agree_in_the_backbone_if_not_in_each_parameter():
    a, b, c = np.array([1.0, 0, 2]), np.array([0.5, 1, 0]), np.array([0.0, 0, 3])
    np.testing.assert_array_equal(pcgrad(seg=a, cls=b, det=c), (a + b + c).astype("float32"))
    a, b = np.array([1.0, 0, 5]), np.array([-1.0, 0, 5])  # the first parameter conflicts, the backbone does not
    np.testing.assert_array_equal(pcgrad(seg=a, det=b), a + b)


def test_pcgrad_of_three_tasks_equals_algorithm_1_on_vectors():
    rng = np.random.default_rng(3)
    conflicts = 0
    for seed in range(20):
        vectors = rng.standard_normal((3, 5))
        order, expected = np.random.default_rng([42, seed]), np.zeros(5)
        for task in range(3):
            projected = vectors[task].copy()
            for other in order.permutation(3):
                if other != task and (dot := projected @ vectors[other]) < 0:
                    projected -= dot / (vectors[other] @ vectors[other]) * vectors[other]
                    conflicts += 1
            expected += projected
        np.testing.assert_allclose(
            pcgrad((42, seed), **dict(zip(TASKS, vectors, strict=True))), expected, rtol=1e-4, atol=1e-5
        )
    assert conflicts > 20


def test_pcgrads_order_comes_from_the_seed():
    vectors = np.array([[1.0, 0.0, 0.0], [-0.5, 1.0, 0.0], [-0.5, -0.8, 0.2]])  # all three conflict with each other
    products = vectors @ vectors.T
    results = [projected_factors(products, (42, step)) for step in range(20)]
    np.testing.assert_array_equal(results[0], projected_factors(products, (42, 0)))
    assert len({tuple(r.tolist()) for r in results}) > 1


def test_pcgrad_counts_a_missing_gradient_as_zero_and_divides_by_no_zero():
    a, zero, tiny = np.array([1.0, -2, 3]), np.zeros(3), np.array([-1e-25, 0, 0])
    np.testing.assert_array_equal(pcgrad(seg=a, cls=None, det=zero), a)
    assert np.isfinite(pcgrad(seg=a, det=tiny)).all()  # its square underflows in float32, the product does not
    partly = gradients(seg=a, det=np.array([-1.0, 0, 0]))
    partly["det"][1] = None
    result = Pcgrad(("seg", "det")).combine(partly, (0, 0))
    np.testing.assert_allclose(joined(result), pcgrad(seg=a, det=np.array([-1.0, 0, 0])), rtol=1e-6)


# TBGC


def tbgc(settings, **of_tasks):
    return joined(Tbgc(tuple(of_tasks), **settings).combine(gradients(**of_tasks), (0, 0)))


A, B = np.array([3.0, 4, 0]), np.array([0.0, 0, 1])  # norms 5 and 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.8, 2.4, 3]),  # mean norm 3
        ({"norm": "det"}, [0.6, 0.8, 1]),
        ({"norm": "seg"}, [3, 4, 5]),
        ({"norm": 2.0}, [1.2, 1.6, 2]),
        ({"clip_norm": 2.0}, [0.9, 1.2, 1.5]),  # clipped norms 2 and 1
        ({"clip_norm": 0.5}, [0.3, 0.4, 0.5]),
        ({"norm": "seg", "clip_norm": 2.0}, [1.2, 1.6, 2]),
        ({"norm": 7.0, "clip_norm": 2.0}, [4.2, 5.6, 7]),
    ],
    ids=str,
)
def test_tbgc_gives_every_task_the_same_norm(settings, expected):
    np.testing.assert_allclose(tbgc(settings, seg=A, det=B), expected, rtol=1e-6)


def test_tbgc_leaves_out_what_is_zero_or_missing_and_does_not_see_loss_weights():
    np.testing.assert_allclose(tbgc({"norm": 1.0}, seg=1000 * A, det=B), tbgc({"norm": 1.0}, seg=A, det=B), rtol=1e-6)
    np.testing.assert_allclose(tbgc({}, seg=A, cls=np.zeros(3), det=B), [1.8, 2.4, 3], rtol=1e-6)
    np.testing.assert_allclose(tbgc({}, seg=A, cls=None, det=B), [1.8, 2.4, 3], rtol=1e-6)
    # the task to follow has no norm: seg keeps its own
    np.testing.assert_array_equal(tbgc({"norm": "det"}, seg=A, det=np.zeros(3)), A)
    np.testing.assert_array_equal(tbgc({}, seg=np.zeros(3), det=np.zeros(3)), np.zeros(3))


@pytest.mark.parametrize(
    ("settings", "expected"), [({"norm": 0.5}, 1.0), ({"clip_norm": 5.0}, 3 * 2**0.5 + 5)], ids=str
)
def test_norms_in_numbers_are_of_the_gradients_without_the_loss_scale(settings, expected):
    model = paddle.nn.Layer()
    model.backbone = paddle.nn.Linear(2, 1)
    apart = TaskGradients(model)
    for task, factor in (("seg", 3.0), ("det", 4.0)):
        (1024 * factor * model.backbone(paddle.to_tensor([[1.0, 0.0]])).sum()).backward()
        apart.take(task)
    norms = inner_products(apart.shared(1024.0)).sum(axis=0).diagonal() ** 0.5
    np.testing.assert_allclose(norms, [3 * 2**0.5, 4 * 2**0.5], rtol=1e-6)
    apart.put_back(Tbgc(("seg", "det"), **settings), (0, 0), None, 1024.0)
    norm = sum(float((p.grad / 1024).square().sum()) for p in model.parameters()) ** 0.5
    assert norm == pytest.approx(expected)  # both point the same way, so that norms add up


def test_tbgc_names_the_norms_that_it_knows():
    with pytest.raises(
        ValueError, match=r"got 'sge'; did you mean 'seg'\? allowed: mean, seg, det, or a positive number"
    ):
        Tbgc(("seg", "det"), norm="sge")


@pytest.mark.parametrize("value", [0, -1.0, [1]])
def test_a_config_cannot_ask_for_a_norm_that_is_none(value):
    def checked(norm):
        return check(TrainSettings, ConfigTree({"balance": {"type": "tbgc", "norm": norm}}, {}, "")).balance

    with pytest.raises(ConfigError, match=r"balance\.norm: got"):
        checked(value)
    assert checked(2)(("seg",)).norm == 2.0
