"""Every method under ``ppmtl/train/balance``: one public class per file, and what the loop relies on."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import paddle
import pytest
from listing import modules

from ppmtl.config.parts import part_names, resolve_part
from ppmtl.train.balance._base import BalanceMethod

PACKAGE = "ppmtl.train.balance"
MODULES = modules(PACKAGE)
TASKS = ("seg", "cls", "det")
SHAPES = ([4, 3], [4], [2, 4, 3, 3], [])


def build(name: str, tasks: tuple[str, ...] = TASKS) -> BalanceMethod:
    return resolve_part(PACKAGE, name)(tasks)


SEPARATE = [name for name in MODULES if build(name).separate]


def gradients(tasks: tuple[str, ...], seed: int = 0) -> dict[str, list[paddle.Tensor | None]]:
    """Random gradients; the second parameter is not reached by the last task, and the third by none."""
    rng = np.random.default_rng(seed)
    found = {t: [paddle.to_tensor(rng.standard_normal(s).astype("float32")) for s in SHAPES] for t in tasks}
    for task in tasks:
        found[task][2] = None
    if len(tasks) > 1:
        found[tasks[-1]][1] = None
    return found


def test_the_listing_found_the_methods() -> None:
    assert len(MODULES) >= 4
    assert part_names(PACKAGE) == MODULES
    assert len(SEPARATE) >= 2


@pytest.mark.parametrize("name", MODULES)
def test_it_is_a_balance_method_with_a_source_and_its_cost_written_down(name: str) -> None:
    found = resolve_part(PACKAGE, name)
    assert isinstance(found, type)
    assert issubclass(found, BalanceMethod)
    assert "Source:" in inspect.getdoc(found)
    assert "Costs " in inspect.getdoc(found)
    assert found.__module__ == importlib.import_module(f"{PACKAGE}.{name}").__name__


@pytest.mark.parametrize("name", MODULES)
def test_it_takes_the_tasks_and_then_annotated_keywords_with_defaults(name: str) -> None:
    first, *settings = inspect.signature(resolve_part(PACKAGE, name)).parameters.values()
    assert first.name == "tasks"
    assert first.kind is first.POSITIONAL_OR_KEYWORD
    for p in settings:
        assert p.kind is p.KEYWORD_ONLY, p
        assert p.annotation is not p.empty, p
        assert p.default is not p.empty, p


@pytest.mark.parametrize("name", MODULES)
def test_it_starts_from_equal_weights(name: str) -> None:
    balance = build(name)
    for task in TASKS:
        objective = balance.weigh(task, paddle.to_tensor(1.5))
        assert objective.shape == []
        assert objective.item() == pytest.approx(1.5)
    assert all(factor == 1 for factor in balance.factors().values())


@pytest.mark.parametrize("name", MODULES)
def test_its_state_goes_round_through_state_dict(name: str) -> None:
    used, fresh = build(name), build(name)
    optimizer = paddle.optimizer.AdamW(0.1, parameters=used.parameters() or [paddle.create_parameter([1], "float32")])
    for step, loss in enumerate((1.0, 0.4, 0.9)):
        for k, task in enumerate(TASKS, 1):
            used.weigh(task, paddle.to_tensor(loss * k, stop_gradient=False)).backward()
        optimizer.step()
        optimizer.clear_grad()
        used.after_step({t: loss**k for k, t in enumerate(TASKS, 1)}, step, 1)
    state = {key: value.numpy() for key, value in used.state_dict().items()}
    fresh.set_state_dict(state)
    assert fresh.factors() == used.factors()
    assert all(np.array_equal(value.numpy(), state[key]) for key, value in fresh.state_dict().items())
    if state:
        assert used.factors() != build(name).factors()


@pytest.mark.parametrize("name", MODULES)
def test_what_it_learns_is_named_after_the_task(name: str) -> None:
    names = [key for key, _ in build(name).named_parameters()]
    assert [key.rpartition(".")[2] for key in names] == (list(TASKS) if names else [])


@pytest.mark.parametrize("name", SEPARATE)
def test_combined_gradients_are_finite_keep_their_shapes_and_are_a_function_of_the_seed(name: str) -> None:
    given = gradients(TASKS)
    before = {task: [None if g is None else g.numpy() for g in kept] for task, kept in given.items()}
    result, again = build(name).combine(given, (42, 7)), build(name).combine(gradients(TASKS), (42, 7))
    assert len(result) == len(SHAPES)
    assert result[2] is None
    for index, shape in enumerate(SHAPES):
        if index != 2:
            assert list(result[index].shape) == shape
            assert result[index].dtype == paddle.float32
            assert result[index].stop_gradient
            assert np.isfinite(result[index].numpy()).all()
            assert np.array_equal(result[index].numpy(), again[index].numpy())
    for task, kept in given.items():  # the loop may still want them, for a diagnosis
        assert all(g is None or np.array_equal(g.numpy(), b) for g, b in zip(kept, before[task], strict=True))


@pytest.mark.parametrize("name", SEPARATE)
def test_one_task_alone_gets_its_plain_gradient(name: str) -> None:
    given = gradients(("seg",))
    for result, plain in zip(build(name, ("seg",)).combine(given, (0, 0)), given["seg"], strict=True):
        assert (result is None) == (plain is None)
        assert plain is None or np.array_equal(result.numpy(), plain.numpy())
