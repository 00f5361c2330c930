"""The loop on a toy: accumulation, separate gradients, diagnosis, stopping, resuming; the tools test it on real parts."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from ppmtl.config.settings import EvalSettings, OptimizerSettings, Settings, TrainSettings
from ppmtl.data.source import Batch, Source
from ppmtl.predict.evaluate import Evaluation, EvaluationError
from ppmtl.tasks.base import Metrics
from ppmtl.train import checkpoint
from ppmtl.train.balance.dwa import Dwa
from ppmtl.train.balance.pcgrad import Pcgrad
from ppmtl.train.balance.tbgc import Tbgc
from ppmtl.train.balance.uncertainty import Uncertainty
from ppmtl.train.log import LOGGER
from ppmtl.train.log_file import read
from ppmtl.train.loop import _report_gradients, fit
from ppmtl.train.state import Progress

Batches = Generator[dict[str, Batch], None, None]
TASKS = ("a", "b", "c")  # three: the order in which two numbers are added does not matter


class Toy(nn.Layer):
    """A linear backbone and a linear head per task; the loss is the mean squared distance to the target."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        self.heads = nn.LayerDict({task: nn.Linear(4, 1) for task in TASKS})
        self.backbone.out_specs = {"x": None}
        for head in self.heads.values():
            head.reads = ("x",)

    def forward(self, images: paddle.Tensor, targets: Mapping[str, Any]) -> dict[str, dict[str, paddle.Tensor]]:
        features = self.backbone(images)
        return {t: {"loss": (self.heads[t](features) - targets[t]["y"]).square().mean()} for t in targets}


class Numbers(Source):
    """A stream of random batches for one task; sample i is a function of i, whatever the batch size."""

    def __init__(
        self,
        task: str,
        batch_size: int,
        *,
        every: int = 1,
        interrupt_at: int | None = None,
        spoil_at: int | None = None,
    ) -> None:
        self.task, self.batch_size, self.every = task, batch_size, every
        self.interrupt_at, self.spoil_at = interrupt_at, spoil_at

    def loader(self, start_step: int, num_steps: int, num_workers: int) -> Batches:  # noqa: ARG002
        for step in range(start_step, start_step + num_steps):
            if step == self.interrupt_at:
                os.kill(os.getpid(), signal.SIGTERM)
            rows = range(step * self.batch_size, (step + 1) * self.batch_size)
            draws = np.stack([np.random.default_rng([ord(self.task), row]).normal(size=5) for row in rows])
            target = draws[:, 4:] * (np.nan if step == self.spoil_at else 1)
            images = paddle.to_tensor(draws[:, :4].astype(np.float32))
            targets = {self.task: {"y": paddle.to_tensor(target.astype(np.float32))}}
            yield {"": Batch(images, targets, {self.task: self.batch_size})}

    def files(self, step: int) -> list[str]:
        return [f"{self.task}{step}.jpg"]


class Shared(Numbers):
    """The same images labelled for every task, in one view of all tasks or in a view per task."""

    def __init__(self, batch_size: int, *, views: bool = False) -> None:
        super().__init__("a", batch_size)
        self.views = views

    def loader(self, start_step: int, num_steps: int, num_workers: int) -> Batches:
        for batches in super().loader(start_step, num_steps, num_workers):
            images, target = batches[""].images, batches[""].targets["a"]["y"]
            targets = {task: {"y": target + index} for index, task in enumerate(TASKS)}
            groups = [[task] for task in TASKS] if self.views else [TASKS]
            yield {
                "".join(group): Batch(images, {t: targets[t] for t in group}, dict.fromkeys(group, self.batch_size))
                for group in groups
            }


def settings(folder: Path, *, optimizer: Mapping[str, Any] | None = None, **train: Any) -> Settings:
    schedule = {"epochs": 1, "steps_per_epoch": 6, "log_every": 1, "save_every": 3, "num_workers": 0, **train}
    rates = {"learning_rate": 1e-2, "warmup_steps": 0, "clip_norm": None, **(optimizer or {})}
    return Settings(str(folder), str(folder), {}, None, {}, OptimizerSettings(**rates), TrainSettings(**schedule))  # type: ignore[arg-type]


def run(wanted: Settings, *, batch_size: int = 4, sources: Mapping[str, Any] | None = None, **options: Any) -> Progress:
    paddle.seed(7)
    model = Toy()
    sources = sources or {task: Numbers(task, batch_size) for task in TASKS}
    tasks: Any = dict.fromkeys(TASKS)
    return fit(wanted, model, tasks, sources, {}, description={}, **options)


def weights(folder: Path, step: int = 6, stem: str = "model") -> dict[str, np.ndarray]:
    return checkpoint.read_tensors(checkpoint.step_folder(folder, step), stem)


def same_bytes(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    # SGD-like sizes of Adam's first steps would amplify rounding of tiny gradients; epsilon is raised against that
    optimizer = {"epsilon": 1e-3}
    run(settings(tmp_path / "large", optimizer=optimizer), batch_size=8)
    run(settings(tmp_path / "small", optimizer=optimizer, accumulate=4), batch_size=2)
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    for name in large:
        np.testing.assert_allclose(small[name], large[name], atol=1e-6)
    run(settings(tmp_path / "plain", optimizer=optimizer), batch_size=2)
    assert max(np.abs(weights(tmp_path / "plain")[name] - large[name]).max() for name in large) > 1e-3


def test_diagnosing_leaves_the_run_as_it_was_bit_for_bit(tmp_path):
    run(settings(tmp_path / "plain"))
    run(settings(tmp_path / "diagnosed"), diagnose_every=2)
    assert same_bytes(weights(tmp_path / "plain"), weights(tmp_path / "diagnosed"))
    assert (tmp_path / "diagnosed" / "diagnosis.csv").stat().st_size > 0
    assert (tmp_path / "diagnosed" / "diagnosis.png").stat().st_size > 0
    assert not (tmp_path / "plain" / "diagnosis.csv").exists()


def test_one_source_for_several_tasks_differentiates_together_or_apart_and_in_one_view_or_several_alike(tmp_path):
    run(settings(tmp_path / "together"), sources={"all": Shared(4)})
    run(settings(tmp_path / "apart", optimizer={"task_clip_norm": 1e6}), sources={"all": Shared(4)})
    run(settings(tmp_path / "views"), sources={"all": Shared(4, views=True)})
    together = weights(tmp_path / "together")
    for other in ("apart", "views"):
        for name, value in weights(tmp_path / other).items():
            np.testing.assert_allclose(value, together[name], atol=1e-5)
    run(settings(tmp_path / "one"), sources={"all": Numbers("a", 4)})
    assert not np.allclose(weights(tmp_path / "one")["backbone.0.weight"], together["backbone.0.weight"], atol=1e-3)


class Listed(Numbers):
    """Notes the number of every batch that it gives."""

    def loader(self, start_step: int, num_steps: int, num_workers: int) -> Batches:
        self.given = list(range(start_step, start_step + num_steps))
        return super().loader(start_step, num_steps, num_workers)


def paced(**changes: Any) -> dict[str, Numbers]:
    return {"a": Listed("a", 4, **changes), "b": Listed("b", 4, every=2), "c": Listed("c", 4, every=3)}


def test_a_source_with_every_takes_all_its_batches_in_order_in_its_own_steps_and_resumes_bit_for_bit(tmp_path):
    for accumulate in (1, 2):
        full, half = tmp_path / f"full{accumulate}", tmp_path / f"half{accumulate}"
        sources = paced()
        run(settings(full, accumulate=accumulate, save_every=1, keep_last=6), sources=sources)
        assert [len(s.given) for s in sources.values()] == [6 * accumulate, 3 * accumulate, 2 * accumulate]
        for step in (1, 2, 3):
            sources = paced()
            run(settings(half, accumulate=accumulate), sources=sources, resume=checkpoint.step_folder(full, step))
            done = [step, -(-step // 2), -(-step // 3)]
            assert [s.given[0] for s in sources.values()] == [count * accumulate for count in done]
            for stem in ("model", "optimizer"):
                assert same_bytes(weights(full, stem=stem), weights(half, stem=stem)), (accumulate, step)


def test_a_step_that_a_source_leaves_out_does_not_move_its_head(tmp_path):
    run(settings(tmp_path, save_every=1, keep_last=6), sources=paced())
    heads = [weights(tmp_path, step)["heads.b.weight"].tobytes() for step in range(1, 7)]
    assert heads[0] == heads[1] != heads[2] == heads[3] != heads[4] == heads[5]


def test_the_log_means_a_loss_over_the_steps_that_had_it_and_counts_only_images_that_were_seen(tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(LOGGER, "info", lambda text, *values: lines.append(text % values if values else text))
    run(settings(tmp_path / "one", log_every=1), sources=paced())
    single = [dict(re.findall(r"(\S+): (\S+)", line)) for line in lines if "Epoch" in line]
    assert ["loss_b" in line for line in single] == [True, False, True, False, True, False]
    assert ["loss_c" in line for line in single] == [True, False, False, True, False, False]
    lines.clear()
    run(settings(tmp_path / "six", log_every=6), sources=paced())
    (mean,) = [dict(re.findall(r"(\S+): (\S+)", line)) for line in lines if "Epoch" in line]
    for name, count in (("loss_a", 6), ("loss_b", 3), ("loss_c", 2)):
        values = [float(line[name]) for line in single if name in line]
        assert (len(values), float(mean[name])) == (count, pytest.approx(np.mean(values), abs=1e-4))
    (numbers,) = read(tmp_path / "six")
    assert numbers["ips"] * numbers["batch_cost"] * 6 == pytest.approx(4 * (6 + 3 + 2))


@pytest.mark.parametrize("method", [Uncertainty, partial(Dwa, temperature=1.0), Pcgrad, Tbgc])
def test_balancing_resumes_exactly_where_sources_leave_out_steps(tmp_path, method):
    options = {"balance": method, "epochs": 3, "steps_per_epoch": 2, "save_every": 1, "keep_last": 6}
    run(settings(tmp_path / "full", **options), sources=paced())
    run(settings(tmp_path / "half", **options), sources=paced(), resume=checkpoint.step_folder(tmp_path / "full", 3))
    for stem in ("model", "optimizer", *(["balance"] if method not in (Pcgrad, Tbgc) else [])):
        assert same_bytes(weights(tmp_path / "full", stem=stem), weights(tmp_path / "half", stem=stem)), stem


def test_a_diagnosis_that_never_sees_a_source_says_so(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("ppmtl.train.loop.announce", lambda text, *values: said.append(text % values))
    run(settings(tmp_path), sources=paced(), diagnose_every=2)
    assert len(said) == 1
    assert "--diagnose 2 never falls on a step of source 'b' (every: 2)" in said[0]


def test_dwa_means_a_loss_over_the_steps_that_had_it(tmp_path):
    seen: list[set[str]] = []

    class Watched(Dwa):
        def after_step(self, losses: Mapping[str, float], step: int, steps_per_epoch: int) -> None:
            seen.append(set(losses))
            super().after_step(losses, step, steps_per_epoch)

    run(settings(tmp_path, balance=Watched), sources=paced())
    assert seen == [{"a", "b", "c"}, {"a"}, {"a", "b"}, {"a", "c"}, {"a", "b"}, {"a"}]


def test_a_step_without_any_label_moves_no_learned_weight_of_a_task_and_tells_dwa_nothing(tmp_path):
    class Unlabelled(Numbers):
        def loader(self, start_step: int, num_steps: int, num_workers: int) -> Batches:
            for batches in super().loader(start_step, num_steps, num_workers):
                yield {"": replace(batches[""], labelled={self.task: 0})}

    sources = {"a": Numbers("a", 4), "b": Unlabelled("b", 4), "c": Numbers("c", 4)}
    run(settings(tmp_path, balance=Uncertainty), sources=sources)
    balance = weights(tmp_path, stem="balance")
    assert {name: bool(value.any()) for name, value in balance.items()} == {
        "log_variances.a": True, "log_variances.b": False, "log_variances.c": True,
    }  # fmt: skip


def test_a_clip_by_task_that_never_bites_changes_nothing(tmp_path):
    run(settings(tmp_path / "plain"))
    run(settings(tmp_path / "loose", optimizer={"task_clip_norm": 1e6}))
    run(settings(tmp_path / "tight", optimizer={"task_clip_norm": 1e-3}))
    assert same_bytes(weights(tmp_path / "plain"), weights(tmp_path / "loose"))
    assert not same_bytes(weights(tmp_path / "plain"), weights(tmp_path / "tight"))


@pytest.mark.parametrize("method", [Uncertainty, partial(Dwa, temperature=1.0), Pcgrad])
def test_a_balanced_run_differs_from_a_plain_one_and_resumes_exactly(tmp_path, method):
    options = {"balance": method, "epochs": 3, "steps_per_epoch": 2}
    run(settings(tmp_path / "plain", epochs=3, steps_per_epoch=2))
    run(settings(tmp_path / "full", **options))
    run(settings(tmp_path / "half", **options))
    run(settings(tmp_path / "half", **options), resume=checkpoint.step_folder(tmp_path / "half", 3))
    assert not same_bytes(weights(tmp_path / "plain"), weights(tmp_path / "full"))
    for stem in ("model", "optimizer", *(["balance"] if method is not Pcgrad else [])):
        assert same_bytes(weights(tmp_path / "full", stem=stem), weights(tmp_path / "half", stem=stem)), stem


def test_going_on_with_another_balancing_method_is_refused(tmp_path):
    run(settings(tmp_path, balance=Pcgrad))
    for other in (None, Uncertainty):
        with pytest.raises(ValueError, match=r"trained with train\.balance Pcgrad.*-o weights="):
            run(settings(tmp_path, balance=other), resume=checkpoint.step_folder(tmp_path, 3))


def test_switching_the_average_off_or_on_goes_on_from_the_trained_weights(tmp_path):
    run(settings(tmp_path / "averaged", ema_decay=0.9))
    run(settings(tmp_path / "plain"))
    assert same_bytes(weights(tmp_path / "averaged", stem="raw"), weights(tmp_path / "plain"))
    run(settings(tmp_path / "averaged"), resume=checkpoint.step_folder(tmp_path / "averaged", 3))
    assert same_bytes(weights(tmp_path / "averaged"), weights(tmp_path / "plain"))
    started = weights(tmp_path / "plain", step=3)
    run(
        settings(tmp_path / "plain", ema_decay=1 - 1e-6, steps_per_epoch=4),
        resume=checkpoint.step_folder(tmp_path / "plain", 3),
    )
    one_step = weights(tmp_path / "plain", step=4, stem="raw")
    # The average's decay is 4/13 after three steps, so it lies between where it started and where the step led
    for name, value in weights(tmp_path / "plain", step=4).items():
        np.testing.assert_allclose(value, started[name] + (one_step[name] - started[name]) * (1 - 4 / 13), atol=1e-6)


def test_balancing_accumulated_batches_equals_balancing_one_large_batch(tmp_path):
    optimizer = {"epsilon": 1e-3}
    run(settings(tmp_path / "large", optimizer=optimizer, balance=Pcgrad), batch_size=8)
    run(settings(tmp_path / "small", optimizer=optimizer, balance=Pcgrad, accumulate=2), batch_size=4)
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    for name in large:
        np.testing.assert_allclose(small[name], large[name], atol=1e-5)


def test_sigterm_finishes_the_step_saves_it_and_resuming_ends_with_the_same_bytes(tmp_path):
    run(settings(tmp_path / "full"))
    sources = {task: Numbers(task, 4, interrupt_at=4 if task == "a" else None) for task in TASKS}
    handler = signal.getsignal(signal.SIGTERM)
    progress = run(settings(tmp_path / "stopped"), sources=sources)
    assert (progress.step, progress.stopped) == (5, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is handler
    found = checkpoint.find_resume(tmp_path / "stopped", "auto")
    assert found.name == "step_0000005"
    assert run(settings(tmp_path / "stopped"), resume=found).stopped == ""
    for stem in ("model", "optimizer"):
        assert same_bytes(weights(tmp_path / "full", stem=stem), weights(tmp_path / "stopped", stem=stem))


def test_a_run_that_stopped_early_goes_on_until_the_next_evaluation_when_resumed(tmp_path):
    from ppmtl.config.settings import EarlyStopSettings

    patient = {"early_stop": EarlyStopSettings(patience=1), "steps_per_epoch": 6}
    run(settings(tmp_path, **patient))
    folder = checkpoint.step_folder(tmp_path, 3)
    state = checkpoint.read_state(folder)
    state["progress"] |= {"stale": 1, "watched_best": 0.5}
    checkpoint.save(folder, {stem: weights(tmp_path, 3, stem) for stem in ("model", "optimizer")}, state)
    assert run(settings(tmp_path, **patient), resume=folder).stopped == ""


def test_a_loss_that_is_not_finite_names_task_step_and_file_of_the_micro_batch(tmp_path):
    sources = {"a": Numbers("a", 2), "b": Numbers("b", 2, spoil_at=5), "c": Numbers("c", 2)}
    with pytest.raises(FloatingPointError, match=r"task 'b'.*step 3.*b5\.jpg"):
        run(settings(tmp_path, accumulate=2), sources=sources)


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path, monkeypatch):
    def square_root(
        self: Toy, images: paddle.Tensor, targets: Mapping[str, Any]
    ) -> dict[str, dict[str, paddle.Tensor]]:
        features = self.backbone(images)
        return {t: {"loss": (self.heads[t](features) * 0).sqrt().mean()} for t in targets}  # slope of sqrt at 0

    monkeypatch.setattr(Toy, "forward", square_root)
    with pytest.raises(FloatingPointError, match=r"norm is (nan|inf) at step 1"):
        run(settings(tmp_path))


def test_a_disk_without_room_is_noticed_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="not enough room"):
        run(settings(tmp_path))
    assert not list(tmp_path.glob("step_*"))


def test_progress_counts_evaluations_without_a_better_value():
    class Result:
        metrics: Mapping[str, Any] = {}

        def __init__(self, score: float) -> None:
            self.score = score

        def value(self, name: str) -> float:
            assert name == "score"
            return self.score

    from ppmtl.config.settings import EarlyStopSettings

    progress, stop = Progress(), EarlyStopSettings(patience=2, min_delta=0.05)
    bests = [progress.note(Result(s), "score", stop) for s in (0.5, 0.52, float("nan"), 0.6)]  # type: ignore[arg-type]
    assert bests == [True, True, False, True]
    assert (progress.watched_best, progress.stale) == (0.6, 0)  # .52 was better, but not by min_delta
    progress.note(Result(0.61), "score", stop)  # type: ignore[arg-type]
    assert progress.stale == 1
    assert Progress.from_json(progress.to_json()).to_json() == progress.to_json()


def test_a_run_that_is_resumed_from_an_earlier_step_logs_no_step_twice(tmp_path):
    run(settings(tmp_path))
    run(settings(tmp_path), resume=checkpoint.step_folder(tmp_path, 3))
    lines = read(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "a.loss", "loss_a", "learning_rate", "grad_norm"} <= set(lines[-1])


# ---- saving and evaluating -------------------------------------------------------------------------------------------


def measured(value: float) -> Evaluation:
    return Evaluation({"a": Metrics("x", {"x": value})}, {}, {})


@pytest.fixture
def evaluations(monkeypatch):
    """What the evaluations of the next runs give, in order; an exception is raised."""
    results: list[Evaluation | Exception] = []

    def evaluate(*_: Any, **__: Any) -> Evaluation:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr("ppmtl.train.loop.evaluate", evaluate)
    return results


def run_evaluated(folder: Path, *, on_error: str = "stop", resume: Path | None = None) -> Progress:
    wanted = replace(settings(folder, eval_every=3), eval=EvalSettings(on_error=on_error))  # type: ignore[arg-type]
    paddle.seed(7)
    sets: Any = {"a": None}
    streams: Any = {task: Numbers(task, 4) for task in TASKS}
    return fit(wanted, Toy(), dict.fromkeys(TASKS), streams, sets, description={}, resume=resume)  # type: ignore[arg-type]


def test_a_due_checkpoint_is_written_before_the_evaluation_and_a_resumed_run_begins_with_that(tmp_path, evaluations):
    evaluations += [measured(0.5), measured(0.25)]
    run_evaluated(tmp_path / "straight")
    evaluations += [RuntimeError("out of memory")]
    with pytest.raises(RuntimeError, match="out of memory"):
        run_evaluated(tmp_path / "killed")
    saved = checkpoint.step_folder(tmp_path / "killed", 3)
    assert checkpoint.read_state(saved)["progress"]["evaluation_due"]
    assert not (tmp_path / "killed" / "best_model").exists()
    evaluations += [measured(0.5), measured(0.25)]
    run_evaluated(tmp_path / "killed", resume=saved)
    for name in ("step_0000003", "step_0000006", "best_model"):
        one, other = (checkpoint.read_state(tmp_path / folder / name) for folder in ("straight", "killed"))
        assert one["progress"] == other["progress"]
        assert one["digests"] == other["digests"]
    assert checkpoint.read_state(tmp_path / "killed" / "best_model")["progress"]["best"] == 0.5
    assert checkpoint.find_resume(tmp_path / "killed", "auto").name == "step_0000006"


def test_a_failed_evaluation_ends_the_run_or_is_logged_and_trained_on_as_the_settings_say(
    tmp_path, evaluations, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("ppmtl"), "propagate", True)
    evaluations += [EvaluationError("evaluation of seg, task 'seg': a.png: cut off")]
    with pytest.raises(EvaluationError, match=r"task 'seg': a\.png: cut off"):
        run_evaluated(tmp_path / "stop")
    evaluations += [EvaluationError("evaluation of seg, task 'seg': a.png: cut off"), measured(0.25)]
    progress = run_evaluated(tmp_path / "skip", on_error="skip")
    assert (progress.step, progress.best, len(progress.history)) == (6, 0.25, 1)
    assert not checkpoint.read_state(checkpoint.step_folder(tmp_path / "skip", 3))["progress"]["evaluation_due"]
    assert any("step 3 is not measured" in record.message and "a.png" in record.message for record in caplog.records)


class Branches(nn.Layer):
    """A backbone with a feature per branch, and a head that reads one of them."""

    def __init__(self, reads: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone = nn.LayerDict({name: nn.Linear(2, 2) for name in ("p3", "p4")})
        self.backbone.out_specs = {"p3": None, "p4": None}
        head = nn.LayerDict({"used": nn.Linear(2, 1), "forgotten": nn.Linear(2, 1)})
        head.reads = reads
        self.heads = nn.LayerDict({"a": head})


def remarks_on(reads: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    model, said = Branches(reads), []
    for level in ("info", "warning"):
        monkeypatch.setattr(LOGGER, level, lambda text, *values, level=level: said.append((level, text % values)))
    model.heads["a"]["used"](model.backbone["p3"](paddle.ones([1, 2]))).sum().backward()
    _report_gradients(model)
    return said


def test_what_makes_a_feature_that_no_head_reads_is_no_warning(monkeypatch):
    forgotten = (
        "2 trainable parameters got no gradient in the first step: heads.a.forgotten.weight, heads.a.forgotten.bias"
    )
    assert remarks_on(("p3",), monkeypatch) == [
        ("info", "2 parameters of the backbone keep their values: no head reads p4"),
        ("warning", forgotten),
    ]
    ((level, text),) = remarks_on(("p3", "p4"), monkeypatch)  # a head says that it reads p4, and it does not
    assert level == "warning"
    assert text.startswith("4 trainable parameters got no gradient in the first step: backbone.p4.weight")
