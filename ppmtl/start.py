"""What tools/train.py and tools/eval.py do in every process: build everything, then train or evaluate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import paddle

from ppmtl import build
from ppmtl.config import ConfigError
from ppmtl.config.settings import Settings
from ppmtl.data.findings import DataError
from ppmtl.data.source import Source
from ppmtl.doctor.start import check_before_training
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.predict import expected, report
from ppmtl.predict.drawing import draw_sample, with_legend
from ppmtl.predict.evaluate import EvalSet, Evaluation, evaluate
from ppmtl.predict.pipeline import Backend
from ppmtl.predict.result_files import ResultFiles
from ppmtl.predict.stored import StoredPredictions
from ppmtl.tasks.views import Slicing
from ppmtl.train import checkpoint, distributed
from ppmtl.train.finetune import start_from
from ppmtl.train.log import LOGGER, start_logging
from ppmtl.train.loop import fit
from ppmtl.train.optim import scaled_learning_rate
from ppmtl.train.used_folder import clear, require_unused
from ppmtl.weights.location import find_weights
from ppmtl.weights.pretrained import load_pretrained

_EXTREMES = 4  # best and worst images that are drawn per task


def evaluate_run(
    run: build.Run,
    tta: Mapping[str, Any],
    *,
    bundle: str | None,
    predictions: str | None,
    save_predictions: bool,
    augment: bool,
    slicing: Slicing | None,
    limit: int | None,
    visualize: int,
    folder: str | None,
    classwise: bool,
    config: str,
    only: Sequence[str] = (),
) -> None:
    """What tools/eval.py does in every process: evaluates, and on rank 0 writes and prints the report.

    Args:
        run: with ``weights`` set, unless ``bundle`` or ``predictions`` are given.
        tta: replaces fields of every task's test-time augmentation.
        bundle: evaluate this exported bundle instead of weights.
        predictions: measure the predictions in this folder or file instead of making any.
        save_predictions: write them below the folder, for other tools and for ``predictions``.
        augment, slicing, limit: as in ``evaluate``.
        visualize: draw the first so many images of each set.
        folder: for metrics.json and images; None = below save_dir, a partial evaluation beside the full one.
        classwise: print the per-class tables.
        config: the name that metrics.json records.
        only: the tasks that were chosen, if these are not all of the config.
    """
    settings = run.settings
    tasks, backend = _opened(settings, tta, bundle, predictions)
    sets = build.build_eval_sets(settings, tasks)
    if not sets:
        raise ValueError("eval.datasets: the config names no validation set for the chosen tasks")
    processes = distributed.processes()
    kind = ["eval", *(["bundle"] if bundle else ["predictions"] if predictions else [])]
    name = "_".join([*kind, *only, *([f"first{limit}"] if limit else [])])
    target, threshold = Path(folder or Path(settings.save_dir) / name), settings.infer.draw_threshold
    what: dict[str, Any] = {"bundle": bundle} if bundle else {"predictions": predictions}
    if not (bundle or predictions):
        what = {"weights": build.require_weights(settings)}
    if processes.rank == 0 and (target / "metrics.json").exists():
        print(f"{target} holds an earlier evaluation, which this one replaces")
    saved = target / "predictions"
    results = ResultFiles(saved, tasks, threshold=threshold, processes=processes) if save_predictions else None
    result = evaluate(tasks, sets, backend, augment=augment, slicing=slicing, batch_size=settings.eval.batch_size,
                      limit=limit, num_examples=visualize, num_extremes=_EXTREMES, draw_threshold=threshold,
                      results=results, processes=processes)  # fmt: skip
    if results is not None:
        results.write({**what, "config": config, "tta": augment, "limit": limit})
    if processes.rank != 0:
        return
    partial = [f"--tasks {','.join(only)}"] if only else []
    partial += [f"--limit {limit}"] if limit else []
    if not (limit or augment or slicing):
        what["expected"] = _judge(result, settings)
    legends = {name: {c: f"#{bytes(rgb).hex()}" for c, rgb in task.legend().items()} for name, task in tasks.items()}
    what |= {"config": config, "tta": augment, "limit": limit, "partial": partial, "legends": legends}
    written = report.write(result, target, what)
    for name, examples in result.examples.items():
        for index, (sample, answers) in enumerate(examples):
            drawn = with_legend(draw_sample(sample, answers, tasks, threshold), answers, tasks)
            written.append(target / f"{name}_{index:03d}.jpg")
            cv2.imencode(".jpg", drawn[..., ::-1])[1].tofile(written[-1])
    print(f"wrote {', '.join(path.name for path in written)} to {target}")
    if partial:
        print(f"a partial evaluation ({' '.join(partial)})")
    if save_predictions:
        print(f"predictions, as COCO results, CSV and label maps: {saved}")
    print(report.text(result, classwise=classwise))


def _opened(
    settings: Settings, tta: Mapping[str, Any], bundle: str | None, predictions: str | None
) -> tuple[build.Tasks, Backend | StoredPredictions]:
    """The tasks and what answers them: weights, a bundle, or predictions made before."""
    if bundle:
        return build.open_exported(bundle, settings, tta)
    if predictions:
        distributed.start(settings.device)
        tasks = build.build_tasks(settings)
        return tasks, StoredPredictions(Path(predictions), tasks)
    return build.open_trained(settings, tta)


def _judge(result: Evaluation, settings: Settings) -> dict[str, Any]:
    """Prints whether the config's eval.expected was met; for metrics.json."""
    rows = expected.compare(result, settings.eval.expected)
    if rows:
        print(expected.text(rows))
    return {row.name: {**asdict(row), "met": row.met} for row in rows}


@dataclass(frozen=True)
class TrainOptions:
    """What tools/train.py is asked for beside the config.

    Attributes:
        evaluate: evaluate during training and keep best_model.
        resume: checkpoint folder to continue from, or "auto" = the newest intact one in save_dir.
        vdl_dir: VisualDL folder.
        diagnose_every: steps between measurements of every task's gradient.
        overfit: train on the first so many batches of every source again and again, and evaluate on their images.
        fast_dev_run: afterwards build everything again and resume; evaluate two images only.
        skip_check: do not look at the data first.
        overwrite: throw away the run that save_dir holds.
    """

    evaluate: bool = False
    resume: str | None = None
    vdl_dir: Path | None = None
    diagnose_every: int | None = None
    overfit: int | None = None
    fast_dev_run: bool = False
    skip_check: bool = False
    overwrite: bool = False


def prepare_training(
    run: build.Run, *, evaluate: bool, resume: str | None, fast_dev_run: bool, overwrite: bool
) -> tuple[build.Run, bool]:
    """The run as it will be trained and whether it is evaluated meanwhile, checked before anything is built.

    Args:
        run: as its config says.
        evaluate, resume, fast_dev_run, overwrite: as in :class:`TrainOptions`.

    Raises:
        ConfigError: if they do not go together, ``save_dir`` holds another run, or data is missing.
    """
    if fast_dev_run:
        if resume:
            raise ConfigError(["--fast_dev_run starts a short run of its own; leave -r out"])
        run = run.changed(_two_steps(run), "--fast_dev_run")
        evaluate = bool(run.settings.eval.datasets)
    elif overwrite and resume:
        raise ConfigError(["--overwrite throws away what -r goes on from; give one of the two"])
    elif not overwrite:
        require_unused(Path(run.settings.save_dir), resume)
    if run.settings.train.early_stop is not None and not evaluate:
        raise ConfigError(["train.early_stop watches the evaluation: add --eval, or -o train.early_stop=null"])
    build.require_data(run.settings, training=True, evaluation=evaluate)
    return run, evaluate


def _two_steps(run: build.Run) -> dict[str, Any]:
    train = {"epochs": 1, "steps_per_epoch": 2, "log_every": 1, "eval_every": 2, "save_every": 1, "early_stop": None}
    values: dict[str, Any] = {f"train.{key}": value for key, value in train.items()}
    return values | {"save_dir": str(Path(run.settings.save_dir) / "fast_dev_run")}


def _check_data(
    settings: Settings, tasks: build.Tasks, sources: Mapping[str, Source], eval_sets: Mapping[str, EvalSet]
) -> None:
    """Rank 0 looks at the data; all processes raise what it found."""
    processes, problem = distributed.processes(), None
    if processes.rank == 0:
        try:
            check_before_training(settings, tasks, sources, eval_sets)
        except DataError as error:
            problem = error
    if (found := processes.all_gather(problem)[0]) is not None:
        raise found


def start_training(run: build.Run, options: TrainOptions) -> str:
    """Builds everything and trains, in this process, the only one or one of several; ``prepare_training`` made ``run``.

    Returns:
        Why the run ended before its schedule, e.g. "SIGTERM"; "" if it did not.
    """
    build.require_work(run.settings)
    save_dir = Path(run.settings.save_dir)
    rank, world_size = distributed.start(run.settings.device)
    if options.fast_dev_run and rank == 0:
        shutil.rmtree(save_dir, ignore_errors=True)
    elif options.overwrite and rank == 0:
        clear(save_dir)
    start_logging(save_dir, rank)
    run = run.changed(scaled_learning_rate(run.settings.optimizer, world_size), "optimizer.scale_lr")
    settings = run.settings
    resume = checkpoint.find_resume(save_dir, options.resume) if options.resume else None
    weights = find_weights(settings.weights) if settings.weights and not resume else None
    tasks = build.build_tasks(settings)
    sources = build.build_sources(settings, tasks, rank=rank, world_size=world_size, repeat=options.overfit)
    eval_sets = {}
    if options.evaluate and options.overfit:
        eval_sets = build.overfit_sets(settings, sources)
    elif options.evaluate:
        eval_sets = build.build_eval_sets(settings, tasks)
    if not options.skip_check:
        # Images learned by heart are looked at as those of their sources
        _check_data(settings, tasks, sources, {} if options.overfit else eval_sets)
    paddle.seed(settings.seed)
    model = build.build_model(settings, tasks)
    if weights is not None:
        start_from(model, weights, tasks)
    elif model.backbone.pretrained and not resume:
        LOGGER.info("pretrained backbone: %s", load_pretrained(model.backbone, model.backbone.pretrained).text())

    description = report.without_nan(build.describe(run, tasks))
    if rank == 0:
        (save_dir / "config.yml").write_text(run.tree.dump(), encoding="utf-8")
        (save_dir / "environment.json").write_text(json.dumps(description["environment"], indent=1), encoding="utf-8")
    LOGGER.info(
        "environment: %s", ", ".join(f"{k} {v}" for k, v in description["environment"].items() if v is not None)
    )
    for name, source in sources.items():
        pace = f" every {source.every} steps" if source.every > 1 else ""
        LOGGER.info("source %s: %s, batch %d%s -> %s", name, source.reader.describe(), source.batch_size, pace,
                    ", ".join(settings.sources[name].all_tasks(name)))  # fmt: skip
    for name, of_set in eval_sets.items():
        LOGGER.info("validation %s: %s", name, of_set.reader.describe())
    count = sum(p.size for p in model.parameters() if not p.stop_gradient)
    LOGGER.info("model: %.2f M parameters, heads %s, device %s, %d process(es)",
                count / 1e6, ", ".join(model.heads), paddle.get_device(), world_size)  # fmt: skip
    if not eval_sets:
        LOGGER.info("no evaluation during training (add --eval); best_model is not written")

    def go(network: MultiTaskModel, resume_from: Path | None) -> str:
        progress = fit(settings, network, tasks, sources, eval_sets, description=description, resume=resume_from,
                       vdl_dir=options.vdl_dir, diagnose_every=options.diagnose_every,
                       eval_limit=2 if options.fast_dev_run else None)  # fmt: skip
        saved = [str(save_dir / name) for name in ("best_model", "latest") if (save_dir / name).exists()]
        where = ", ".join(saved) or "no file: train.save_every is null"
        how = f"stopped ({progress.stopped})" if progress.stopped else "done"
        LOGGER.info("%s after %d steps; weights in %s", how, progress.step, where)
        return progress.stopped

    stopped = go(model, resume)
    if options.fast_dev_run:
        distributed.agree(0)  # a barrier: rank 0 may still be writing what the others would take for left by a kill
        go(build.build_model(settings, tasks), checkpoint.find_resume(save_dir, "auto"))
        LOGGER.info("fast_dev_run: training, evaluation, saving and loading work; the folder may be deleted")
    return stopped
