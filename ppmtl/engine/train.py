"""The training loop: Algorithm 1 of the paper, in one function."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from paddle import nn
from tqdm import tqdm

from ppmtl.drawing import draw_sample
from ppmtl.engine import checkpoint, distributed
from ppmtl.engine.backend import PaddleBackend
from ppmtl.engine.ema import ExponentialMovingAverage
from ppmtl.engine.evaluate import Dataset, Evaluation, evaluate
from ppmtl.engine.log import LOGGER, VisualLog, Window, train_line
from ppmtl.engine.optim import (
    build_optimizer,
    clip_gradients,
    learning_rate_at,
    load_optimizer_state,
    optimizer_state,
)
from ppmtl.report import one_line, without_nan
from ppmtl.run import Settings, to_steps
from ppmtl.tasks.base import Task


class Batch(Protocol):
    """One training batch as tensors: images (B, H, W, 3) and {task: {target name: tensor}}."""

    @property
    def images(self) -> paddle.Tensor: ...

    @property
    def targets(self) -> Mapping[str, Mapping[str, paddle.Tensor]]: ...


class Source(Protocol):
    """An endless, restartable stream of batches."""

    batch_size: int

    def loader(self, start_step: int, num_steps: int, num_workers: int) -> Iterator[Batch]: ...

    def files(self, step: int) -> list[str]: ...


@dataclass
class Progress:
    """Where a run stands; saved in every checkpoint."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    settings: Settings,
    model: nn.Layer,
    tasks: Mapping[str, Task],
    sources: Mapping[str, Source],
    val_datasets: Mapping[str, Dataset],
    *,
    description: Mapping[str, Any],
    resume: Path | None = None,
    vdl_dir: Path | None = None,
) -> Progress:
    """Trains ``model`` to the end of the schedule and returns where it ended.

    Each step: for every source in order take a batch, run forward and backward (gradients add up); then one all-reduce,
    one clip, one optimizer step. Memory is one task's, not the sum.

    Args:
        settings: the run.
        model: as built; wrapped for several processes here.
        tasks: {name: task}, for evaluation.
        sources: {name: stream}, in the order in which they are run.
        val_datasets: {task: labelled data set}; empty = no evaluation during training.
        description: what every checkpoint's state.json carries besides progress (config, classes, versions).
        resume: checkpoint folder to continue from.
        vdl_dir: VisualDL folder; None = off.

    Raises:
        FloatingPointError: if a loss is not finite; the message names task, term, step and the batch's files.
    """
    schedule, total = settings.train, settings.train.total_steps
    steps = {
        name: None if value is None else to_steps(value, schedule.steps_per_epoch)
        for name, value in (("log", schedule.log_every), ("eval", schedule.eval_every), ("save", schedule.save_every))
    }
    if not val_datasets:
        steps["eval"] = None
    save_dir = Path(settings.save_dir)
    network = distributed.wrap(model)
    trainable = [p for p in model.parameters() if not p.stop_gradient]
    optimizer = build_optimizer(model, settings.optimizer)
    ema = ExponentialMovingAverage(model, schedule.ema_decay) if schedule.ema_decay else None
    progress = _resume(resume, model, optimizer, ema) if resume else Progress()
    streams = {n: s.loader(progress.step, total - progress.step, schedule.num_workers) for n, s in sources.items()}
    images_per_step = sum(s.batch_size for s in sources.values()) * paddle.distributed.get_world_size()
    is_main = paddle.distributed.get_rank() == 0
    window, started, first_step = Window(), time.perf_counter(), progress.step
    bar = tqdm(total=total, initial=first_step, unit="step", disable=not (is_main and sys.stderr.isatty()), leave=False)

    with VisualLog(vdl_dir if is_main else None) as visual:
        network.train()
        for step in range(first_step, total):
            step_started = time.perf_counter()
            learning_rate = learning_rate_at(step, settings.optimizer, total)
            optimizer.set_lr(learning_rate)
            _seed_step(settings.seed, step)  # drop-path and dropout too are functions of the step: exact resume
            data_cost, step_loss = 0.0, 0.0
            for name, stream in streams.items():
                waiting = time.perf_counter()
                batch = next(stream)
                data_cost += time.perf_counter() - waiting
                with distributed.no_sync(network):
                    terms = network(batch.images, targets=batch.targets)
                    loss = _weighted_sum(terms, schedule.loss_weights)
                    numbers = _check_finite(terms, step, sources[name])
                    loss.backward()
                window.add(**numbers)
                step_loss += float(loss)
            if step == first_step:
                _report_gradients(model)
            distributed.average_gradients(trainable)
            gradient_norm = clip_gradients(trainable, settings.optimizer.clip_norm)
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            if ema is not None:
                ema.update(step)
            progress.step = done = step + 1
            bar.update()
            window.add(loss=step_loss, grad_norm=gradient_norm, learning_rate=learning_rate, data_cost=data_cost)
            window.add(batch_cost=time.perf_counter() - step_started)

            if _every(done, steps["log"], total):
                means = window.take()
                eta = (time.perf_counter() - started) / (done - first_step) * (total - done)
                LOGGER.info(train_line(done, total, schedule.steps_per_epoch, means, images_per_step, eta))
                visual.scalars(means, done, "train")
            is_best = False
            if _every(done, steps["eval"], total) and is_main:
                result = _evaluate(model, ema, tasks, val_datasets, settings.eval.batch_size)
                is_best = _note(progress, result, schedule.best_metric)
                LOGGER.info("step %d: %s (best %s so far: %.4f at step %d)",
                            done, one_line(result), schedule.best_metric, progress.best, progress.best_step)  # fmt: skip
                _show(visual, tasks, result, done)
            if is_main and (_every(done, steps["save"], total) or is_best):
                _save(save_dir, model, optimizer, ema, progress, description, schedule.keep_last, is_best)
    bar.close()
    return progress


def _every(done: int, interval: int | None, total: int) -> bool:
    """Returns whether something that happens every ``interval`` steps is due; the last step always is."""
    return interval is not None and (done % interval == 0 or done == total)


def _report_gradients(model: nn.Layer) -> None:
    """Says once whether every trainable parameter is reached; a part that is built and never used shows up here."""
    trainable = [(name, p) for name, p in model.named_parameters() if not p.stop_gradient]
    dead = [name for name, p in trainable if p.grad is None]
    if dead:
        LOGGER.warning("%d trainable parameters got no gradient in the first step: %s", len(dead), ", ".join(dead[:5]))
    else:
        LOGGER.info("all %d trainable parameters got a gradient in the first step", len(trainable))


def _seed_step(seed: int, step: int) -> None:
    rank = paddle.distributed.get_rank()
    paddle.seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0]))


def _weighted_sum(terms: Mapping[str, Mapping[str, paddle.Tensor]], weights: Mapping[str, float]) -> paddle.Tensor:
    parts = [value * weights.get(task, 1.0) for task, of_task in terms.items() for value in of_task.values()]
    return paddle.add_n(parts)


def _check_finite(terms: Mapping[str, Mapping[str, paddle.Tensor]], step: int, source: Source) -> dict[str, float]:
    """Returns {"loss_<task>": sum, "<task>.<term>": value} for the log; stops the run on a non-finite term."""
    numbers: dict[str, float] = {}
    for task, of_task in terms.items():
        values = {term: float(value) for term, value in of_task.items()}
        for term, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"task '{task}', term '{term}' is {value} at step {step + 1}; the batch was "
                    f"{', '.join(source.files(step))}. Lower optimizer.learning_rate or set optimizer.clip_norm, and "
                    "look at these files; the last checkpoint is untouched"
                )
            numbers[f"{task}.{term}"] = value
        numbers[f"loss_{task}"] = sum(values.values())
    return numbers


def _evaluate(
    model: nn.Layer,
    ema: ExponentialMovingAverage | None,
    tasks: Mapping[str, Task],
    datasets: Mapping[str, Dataset],
    batch_size: int,
) -> Evaluation:
    """Returns the evaluation of the weights that would be saved: the average when there is one."""
    raw = {name: value.numpy() for name, value in model.state_dict().items()} if ema else {}
    if ema is not None:
        model.set_state_dict(ema.state())
    result = evaluate(tasks, datasets, PaddleBackend(model), batch_size=batch_size, num_examples=2)
    if ema is not None:
        model.set_state_dict(raw)
    return result


def _note(progress: Progress, result: Evaluation, metric: str) -> bool:
    """Writes the evaluation into the run's history; returns whether it is the best so far."""
    value = result.value(metric)
    values = {f"{task}.{key}": v for task, m in result.metrics.items() for key, v in m.values.items()}
    progress.history.append({"step": progress.step, "score": result.score, **values})
    if not value > progress.best:  # NaN is never the best
        return False
    progress.best, progress.best_step = value, progress.step
    return True


def _show(visual: VisualLog, tasks: Mapping[str, Task], result: Evaluation, step: int) -> None:
    for name, metrics in result.metrics.items():
        visual.scalars(metrics.values, step, f"val_{name}")
        for index, (sample, prediction) in enumerate(result.examples[name]):
            picture = draw_sample(sample, {name: prediction}, tasks, threshold=0.3)
            visual.image(f"val_{name}/{index}", picture, step)


def _save(
    save_dir: Path,
    model: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    ema: ExponentialMovingAverage | None,
    progress: Progress,
    description: Mapping[str, Any],
    keep_last: int,
    is_best: bool,
) -> None:
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    tensors = {"model": ema.state(), "raw": weights} if ema else {"model": weights}
    state = {**description, "progress": without_nan(vars(progress))}
    if is_best:
        checkpoint.save(save_dir / "best_model", tensors, state)
    folder = checkpoint.step_folder(save_dir, progress.step)
    checkpoint.save(folder, {**tensors, "optimizer": optimizer_state(dict(model.named_parameters()), optimizer)}, state)
    checkpoint.mark_latest(save_dir, folder)
    checkpoint.drop_old(save_dir, keep_last)


def _resume(
    folder: Path, model: nn.Layer, optimizer: paddle.optimizer.Optimizer, ema: ExponentialMovingAverage | None
) -> Progress:
    state = checkpoint.read_state(folder)["progress"]
    if ema is None:
        checkpoint.load_weights(model, checkpoint.read_tensors(folder), str(folder))
    else:
        checkpoint.load_weights(model, checkpoint.read_tensors(folder, "raw"), str(folder))
        ema.load(checkpoint.read_tensors(folder))
    load_optimizer_state(dict(model.named_parameters()), optimizer, checkpoint.read_tensors(folder, "optimizer"))
    LOGGER.info("resumed from %s at step %d", folder, state["step"])
    best = -math.inf if state["best"] is None else state["best"]
    return Progress(state["step"], best, state["best_step"], state["history"])
