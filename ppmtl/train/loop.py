"""The training loop: Algorithm 1 of the paper, in one function."""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppmtl.config.settings import Settings, named_views, to_steps
from ppmtl.data.source import Source
from ppmtl.models.backend import PaddleBackend
from ppmtl.predict.drawing import draw_sample
from ppmtl.predict.evaluate import EvalSet, EvaluationError, evaluate
from ppmtl.predict.report import one_line
from ppmtl.tasks.base import Task
from ppmtl.train import checkpoint, distributed
from ppmtl.train.diagnose import Diagnosis
from ppmtl.train.freeze import freeze
from ppmtl.train.gradients import TaskGradients
from ppmtl.train.log import LOGGER, Reporter, VisualLog, announce
from ppmtl.train.losses import StepLosses, open_stream, take_batches
from ppmtl.train.optim import build_optimizer, clip_gradients, learning_rate_at
from ppmtl.train.precision import ExponentialMovingAverage, Precision
from ppmtl.train.state import Progress, TrainingState, balance_parameters
from ppmtl.train.stopping import StopSignal


def fit(
    settings: Settings,
    model: nn.Layer,
    tasks: Mapping[str, Task[Any]],
    sources: Mapping[str, Source],
    eval_sets: Mapping[str, EvalSet],
    *,
    description: Mapping[str, Any],
    resume: Path | None = None,
    vdl_dir: Path | None = None,
    diagnose_every: int | None = None,
    eval_limit: int | None = None,
) -> Progress:
    """Trains ``model`` to the end of the schedule and returns where it ended.

    Each step: take the batches of every source whose turn it is; for every view of each run forward and backward
    (gradients add up); then one all-reduce, one clip, one optimizer step. Memory is one view's, not the sum.

    Args:
        settings: the run.
        model: as built; wrapped for several processes here.
        tasks: {name: task}, for evaluation.
        sources: {name: stream}, in the order in which they are run.
        eval_sets: {name: labelled data set}; empty = no evaluation during training.
        description: what every checkpoint's state.json carries besides progress (config, classes, versions).
        resume: checkpoint folder to continue from.
        vdl_dir: VisualDL folder; None = off.
        diagnose_every: steps between measurements of every task's gradient; None = off.
        eval_limit: only the first so many images of each evaluation set; None = all.

    Raises:
        FloatingPointError: if a loss is not finite; the message names task, term, step and the batch's files.
        OSError: if the disk is too full for one more checkpoint; raised before the first step where it can be known.
    """
    schedule, total, save_dir = settings.train, settings.train.total_steps, Path(settings.save_dir)
    log_every, eval_every, save_every = (
        None if every is None else to_steps(every, schedule.steps_per_epoch)
        for every in (schedule.log_every, schedule.eval_every if eval_sets else None, schedule.save_every)
    )
    state = _training_state(settings, model, list(tasks))
    optimizer, precision, balance, ema = state.optimizer, state.precision, state.balance, state.ema
    if resume:
        state.restore(resume)
    progress, first_step, accumulate = state.progress, state.progress.step, schedule.accumulate
    network = distributed.wrap(model)
    trainable = [p for p in model.parameters() if not p.stop_gradient]
    learned = list(balance_parameters(balance).values())
    by_task = TaskGradients(model)
    supervised = Counter(task for _, view in named_views(settings.sources).values() for task in view.tasks)
    several = frozenset(task for task, count in supervised.items() if count > 1)
    # Of the steps still to come, the first that takes every source
    first_full = next((s for s in range(first_step, total) if not any(s % of.every for of in sources.values())), None)
    is_main = (rank := paddle.distributed.get_rank()) == 0
    keeps_tasks = settings.optimizer.task_clip_norm is not None or (balance is not None and balance.separate)
    if is_main and (save_every or eval_every):
        checkpoint.check_room(save_dir, state.bytes_needed())

    with ExitStack() as stack:
        visual = stack.enter_context(closing(VisualLog(vdl_dir if is_main else None)))
        reporter = stack.enter_context(closing(Reporter(settings, sources, first_step, visual)))
        signals = stack.enter_context(StopSignal())
        diagnosis = None
        for name, source in sources.items():
            if math.gcd(source.every, diagnose_every or 1) > 1:
                announce("--diagnose %s never falls on a step of source '%s' (every: %d); give a number without a common "
                         "divisor", diagnose_every, name, source.every)  # fmt: skip
        if diagnose_every and is_main:
            diagnosis = stack.enter_context(
                Diagnosis(save_dir, by_task.shared_names, start_step=first_step, visual=visual, balance=balance)
            )
        streams = {
            name: stack.enter_context(closing(open_stream(source, first_step, schedule)))
            for name, source in sources.items()
        }
        if progress.evaluation_due and eval_sets:  # saved before an evaluation that did not come to its end
            is_best = _evaluate(settings, state, tasks, eval_sets, eval_limit, reporter)
            if is_main:
                _save_evaluation(state, save_dir, description, is_best)
            if reason := _reason_to_stop(settings, progress, 0, is_evaluated=True):
                progress.stopped = reason
                return progress
        model.train()  # not network.train(): that would reach past the model and wake up its frozen parts
        for step in range(first_step, total):
            reporter.start_step()
            learning_rate = learning_rate_at(step, settings.optimizer, total)
            optimizer.set_lr(learning_rate)
            # Drop-path and dropout too are functions of the step: exact resume
            paddle.seed(int(np.random.SeedSequence([settings.seed, rank, step]).generate_state(1)[0]))
            diagnosed = diagnose_every is not None and (step + 1) % diagnose_every == 0
            with reporter.waiting_for_data():
                batches = take_batches(step, streams, sources, accumulate)
            losses = StepLosses(schedule.loss_weights, batches, several)
            for of in batches:
                model.backbone.single_backward = len(of.batch.targets) < 2 or not (keeps_tasks or diagnosed)
                with distributed.no_sync(network):
                    with precision.autocast():
                        terms = network(of.batch.images, targets=of.batch.targets)
                    weighted = losses.add(of, terms)
                    objectives = {
                        task: (loss if balance is None else balance.weigh(task, loss)) / accumulate * losses.factor(of, task)
                        for task, loss in weighted.items()
                    }  # fmt: skip
                    _backward(objectives, precision, by_task if keeps_tasks or diagnosed else None)
            losses.to_host(step)  # raises if one is not finite, before any weight changes
            if keeps_tasks or diagnosed:
                by_task.average()
                if diagnosis is not None and diagnosed:
                    shared = by_task.shared(precision.scale)
                    diagnosis.record(step + 1, {task: shared[task] for task in losses.of_tasks})
                by_task.put_back(balance, (settings.seed, step), settings.optimizer.task_clip_norm, precision.scale)
                distributed.average_gradients(learned)
            else:
                distributed.average_gradients(trainable + learned)
            if step == first_full:
                _report_gradients(model)
            precision.unscale()
            gradient_norm = clip_gradients(trainable, settings.optimizer.clip_norm)
            if not precision.found_nonfinite:  # float16: else the step is left out and the scale halved
                _check_gradient(gradient_norm, step)
            precision.step()
            optimizer.clear_grad(set_to_zero=False)
            of_tasks = {task: losses.of_tasks[task] / accumulate for task in tasks if task in losses.of_tasks}
            if balance is not None:
                balance.after_step(distributed.average_numbers(of_tasks), step, schedule.steps_per_epoch)
            if ema is not None:
                ema.update(step)
            progress.step = done = step + 1
            reporter.end_step(losses, sum(of_tasks.values()), learning_rate,
                              None if precision.found_nonfinite else gradient_norm)  # fmt: skip

            is_logged, is_evaluated, is_due = (
                every is not None and (done % every == 0 or done == total)
                for every in (log_every, eval_every, save_every)
            )
            if is_logged:
                reporter.log(done, balance.factors() if balance is not None else {})
            signal_number = distributed.agree(signals.number)
            if is_due or is_evaluated or signal_number:
                distributed.average_buffers(model, *([ema.average] if ema is not None else []))
            progress.evaluation_due = is_evaluated
            if is_saved := bool(is_main and (is_due or signal_number)):  # first: an evaluation may fail or be killed
                state.save(save_dir, description, schedule.keep_last)
            is_best = is_evaluated and _evaluate(settings, state, tasks, eval_sets, eval_limit, reporter)
            progress.stopped = _reason_to_stop(settings, progress, signal_number, is_evaluated)
            if is_main and is_evaluated and is_saved:
                _save_evaluation(state, save_dir, description, is_best)
            elif is_main and not is_saved and (is_best or progress.stopped):
                if is_best:
                    state.save_best(save_dir, description)
                state.save(save_dir, description, schedule.keep_last)
            if progress.stopped:
                break
    return progress


def _training_state(settings: Settings, model: nn.Layer, tasks: Sequence[str]) -> TrainingState:
    """Everything a new run carries besides its data, freezing what the settings freeze."""
    if settings.train.freeze:
        freeze(model, settings.train.freeze)
    balance = settings.train.balance(tasks) if settings.train.balance is not None else None
    optimizer = build_optimizer(model, settings.optimizer, balance_parameters(balance))
    precision = Precision(settings.train.amp, model, optimizer)
    decay = settings.train.ema_decay
    ema = ExponentialMovingAverage(precision.weights, decay) if decay else None
    return TrainingState(model, optimizer, precision, balance, ema)


def _evaluate(
    settings: Settings,
    state: TrainingState,
    tasks: Mapping[str, Task[Any]],
    eval_sets: Mapping[str, EvalSet],
    limit: int | None,
    reporter: Reporter,
) -> bool:
    """Evaluates the weights that would be saved, logs and draws the result; returns whether it is the best so far.

    Raises:
        EvaluationError: if it fails and eval.on_error is "stop".
    """
    best_metric, progress = settings.train.best_metric, state.progress
    try:
        with state.evaluated_weights():
            result = evaluate(tasks, eval_sets, PaddleBackend(state.model), batch_size=settings.eval.batch_size,
                              num_examples=2, limit=limit, processes=distributed.processes())  # fmt: skip
    except EvaluationError as error:
        if settings.eval.on_error == "stop":
            raise
        LOGGER.error("step %d is not measured, training goes on (eval.on_error): %s", progress.step, error)
        progress.evaluation_due = False
        return False
    progress.evaluation_due = False
    is_best = progress.note(result, best_metric, settings.train.early_stop)
    LOGGER.info("step %d: %s (best %s so far: %.4f at step %d)",
                progress.step, one_line(result), best_metric, progress.best, progress.best_step)  # fmt: skip
    reporter.evaluated(progress.step, {k: v for k, v in progress.history[-1].items() if k != "step"})
    for name, metrics in result.metrics.items():
        reporter.visual.scalars(metrics.values, progress.step, f"val_{name}")
    for name, examples in result.examples.items():
        for index, (sample, predictions) in enumerate(examples):
            drawn = draw_sample(sample, predictions, tasks, threshold=0.3)
            reporter.visual.image(f"val_{name}/{index}", drawn, progress.step)
    return is_best


def _save_evaluation(state: TrainingState, save_dir: Path, description: Mapping[str, Any], is_best: bool) -> None:
    """Saves what was measured for a step that is saved already."""
    if is_best:
        state.save_best(save_dir, description)
    state.note_progress(save_dir)


def _reason_to_stop(settings: Settings, progress: Progress, signal_number: int, is_evaluated: bool) -> str:
    """Why the run ends here, or ""."""
    early_stop = settings.train.early_stop
    if signal_number:
        return signal.Signals(signal_number).name
    if early_stop is not None and is_evaluated and progress.stale >= early_stop.patience:
        watched = early_stop.metric or settings.train.best_metric
        return f"{watched} did not become better in {progress.stale} evaluations (train.early_stop)"
    return ""


def _report_gradients(model: nn.Layer) -> None:
    """Warns once about parameters without gradient: a part that is built and never used."""
    has_gradient = {name: p.grad is not None for name, p in model.named_parameters() if not p.stop_gradient}
    dead = [name for name, has in has_gradient.items() if not has]
    if not dead:
        LOGGER.info("all %d trainable parameters got a gradient in the first step", len(has_gradient))
        return
    # Of a run of some tasks (--tasks) no head may read some features; what only makes those has nothing to learn from
    read = {feature for head in model.heads.values() for feature in head.reads}
    unread = [feature for feature in model.backbone.out_specs if feature not in read]
    idle = [name for name in dead if unread and name.startswith("backbone.")]
    if idle:
        LOGGER.info("%d parameters of the backbone keep their values: no head reads %s", len(idle), ", ".join(unread))
    if unused := [name for name in dead if name not in idle]:
        LOGGER.warning(
            "%d trainable parameters got no gradient in the first step: %s", len(unused), ", ".join(unused[:5])
        )


def _backward(objectives: Mapping[str, paddle.Tensor], precision: Precision, by_task: TaskGradients | None) -> None:
    """Differentiates one batch's objectives: together, or task by task where their gradients are kept separately."""
    if by_task is None:
        precision.backward(paddle.add_n(list(objectives.values())))
        return
    for number, (task, objective) in enumerate(objectives.items(), 1):
        precision.backward(objective, retain_graph=number < len(objectives))
        by_task.take(task)


def _check_gradient(norm: float, step: int) -> None:
    """Stops the run before a gradient that is not finite spoils every weight; finite losses can have one."""
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"the gradient's norm is {norm} at step {step + 1}, though every loss was finite; no weight was changed. Find "
            "the task with --diagnose 1, lower optimizer.learning_rate or set optimizer.task_clip_norm; -r auto goes on "
            "from the last checkpoint"
        )
