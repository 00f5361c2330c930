"""Trains one model for several tasks.

python tools/train.py -c configs/allinone_traffic.yml --eval
python tools/train.py -c configs/allinone_demo.yml --eval --use_vdl -o train.epochs=5
python tools/train.py -c configs/allinone_traffic.yml -r auto          (continue after an interruption)
python tools/train.py -c configs/allinone_traffic.yml --fast_dev_run   (two steps of everything: is all in order?)
python -m paddle.distributed.launch --gpus 0,1,2,3 tools/train.py -c configs/allinone_traffic.yml --eval
"""

import argparse
import dataclasses
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.config import ConfigError, ConfigTree
from ppmtl.config.settings import Settings

if TYPE_CHECKING:
    from ppmtl.data.source import Source
    from ppmtl.models.multitask import MultiTaskModel


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0, or 128 + the signal's number when a signal ended the run (as shells have it)."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("-r", "--resume", nargs="?", const="auto", metavar="FOLDER|auto",
                        help="continue from a checkpoint; 'auto' (or no value) = the newest whole one in save_dir")  # fmt: skip
    cli.add_switch(parser, "--eval", "evaluate during training (train.eval_every) and keep best_model")
    cli.add_switch(parser, "--use_vdl", "write VisualDL scalars and sample pictures")
    parser.add_argument("--vdl_log_dir", metavar="DIR", help="default: <save_dir>/vdl")
    cli.add_nprocs(parser, "train")
    cli.add_switch(parser, "--amp", "mixed precision on GPU (-o train.amp.level=O1, bfloat16, unless the config says)")
    parser.add_argument("--diagnose", type=int, metavar="N",
                        help="every N steps measure each task's gradient in the trunk: norms and cosines per stage, to "
                        "<save_dir>/diagnosis.csv and .png, and a warning when a task starves")  # fmt: skip
    cli.add_switch(parser, "--fast_dev_run", "two steps of everything (train, evaluate, save, load) in a folder of "
                   "its own, to see whether config and data are in order")  # fmt: skip
    parser.add_argument("--overfit", type=int, metavar="N",
                        help="train on the first N batches of every source again and again: a model that cannot learn "
                        "them by heart will not learn more")  # fmt: skip
    arguments = parser.parse_args(argv)
    settings, _ = _settings(arguments)
    cli.require_data(settings, training=True, evaluation=arguments.eval)
    cli.launch(train, arguments)
    return 0


def _settings(arguments: argparse.Namespace) -> tuple[Settings, ConfigTree]:
    """Returns the settings with what the flags change about them."""
    if arguments.amp:
        arguments.overrides.insert(0, ["train.amp.level=O1"])  # first: -o train.amp.level=O2 wins
        arguments.amp = False
    settings, tree = cli.load_settings(arguments)
    problems = [
        f"--{name}: must be at least 1, got {value}"
        for name, value in (("overfit", arguments.overfit), ("diagnose", arguments.diagnose))
        if value is not None and value < 1
    ]
    if arguments.fast_dev_run:
        arguments.eval = bool(settings.eval.datasets)
        schedule = dataclasses.replace(settings.train, epochs=1, steps_per_epoch=2, log_every=1, eval_every=2,
                                       save_every=1, early_stop=None)  # fmt: skip
        folder = str(Path(settings.save_dir) / "fast_dev_run")
        settings = dataclasses.replace(settings, train=schedule, save_dir=folder)
        if arguments.resume:
            problems.append("--fast_dev_run starts a short run of its own; leave -r out")
    if settings.train.early_stop is not None and not arguments.eval:
        problems.append("train.early_stop watches the evaluation: add --eval, or -o train.early_stop=null")
    if problems:
        raise ConfigError(problems)
    return settings, tree


def train(arguments: argparse.Namespace) -> None:
    """Trains in this process, the only one or one of several.

    Raises:
        SystemExit: 128 + the signal's number, when a signal ended the run.
    """
    settings, tree = _settings(arguments)

    import json

    import paddle

    from ppmtl import build
    from ppmtl.predict.report import without_nan
    from ppmtl.train import checkpoint, distributed
    from ppmtl.train.finetune import load_initial
    from ppmtl.train.log import LOGGER, start_logging
    from ppmtl.train.loop import fit
    from ppmtl.train.optim import scaled_learning_rate
    from ppmtl.weights.pretrained import load_pretrained

    rank, world_size = distributed.start(settings.device)
    save_dir = Path(settings.save_dir)
    if arguments.fast_dev_run and rank == 0:
        shutil.rmtree(save_dir, ignore_errors=True)
    start_logging(save_dir, rank)
    resume = checkpoint.find_resume(save_dir, arguments.resume) if arguments.resume else None
    classes = build.build_classes(settings)
    tasks = build.build_tasks(settings, classes)
    sources = build.build_sources(settings, classes, tasks, rank=rank, world_size=world_size, repeat=arguments.overfit)
    val = build.build_val_datasets(settings, classes) if arguments.eval else {}
    paddle.seed(settings.seed)
    model = build.build_model(settings, classes)
    if settings.weights and not resume:
        load_initial(model, checkpoint.read_tensors(settings.weights), settings.weights, classes=classes,
                     stored_classes=checkpoint.read_state(settings.weights).get("classes"))  # fmt: skip
    elif not resume and (pretrained := getattr(model.backbone, "pretrained", None)):
        LOGGER.info("pretrained backbone: %s", load_pretrained(model.backbone, pretrained).text())

    description = without_nan(build.describe(tree.data, classes))
    if rank == 0:
        (save_dir / "config.yml").write_text(tree.dump(), encoding="utf-8")
        (save_dir / "environment.json").write_text(json.dumps(description["environment"], indent=1), encoding="utf-8")
    _say_what_is_trained(settings, description["environment"], sources, val, model, world_size)
    settings = dataclasses.replace(settings, optimizer=scaled_learning_rate(settings.optimizer, world_size))
    vdl = Path(arguments.vdl_log_dir or save_dir / "vdl") if arguments.use_vdl else None

    def run(network: paddle.nn.Layer, resume_from: Path | None) -> str:
        progress = fit(settings, network, tasks, sources, val, description=description, resume=resume_from, vdl_dir=vdl,
                       diagnose_every=arguments.diagnose, eval_limit=2 if arguments.fast_dev_run else None)  # fmt: skip
        saved = [str(save_dir / name) for name in ("best_model", "latest") if (save_dir / name).exists()]
        where = ", ".join(saved) or "no file: train.save_every is null"
        LOGGER.info("%s after %d steps; weights in %s",
                    f"stopped ({progress.stopped})" if progress.stopped else "done", progress.step, where)  # fmt: skip
        return progress.stopped

    stopped = run(model, resume)
    if arguments.fast_dev_run:
        run(build.build_model(settings, classes), checkpoint.find_resume(save_dir, "auto"))
        LOGGER.info("fast_dev_run: training, evaluation, saving and loading work; the folder may be deleted")
    if stopped in signal.Signals.__members__:
        LOGGER.info("go on with: python %s -r auto", " ".join(sys.argv))
        sys.exit(128 + signal.Signals[stopped])


def _say_what_is_trained(
    settings: Settings,
    environment: Mapping[str, str],
    sources: Mapping[str, "Source"],
    val: Mapping[str, Any],
    model: "MultiTaskModel",
    world_size: int,
) -> None:
    import paddle

    from ppmtl.train.log import LOGGER

    LOGGER.info("environment: %s", ", ".join(f"{k} {v}" for k, v in environment.items()))
    for name, source in sources.items():
        LOGGER.info("source %s: %s, batch %d -> %s",
                    name, source.dataset.describe(), source.batch_size, settings.sources[name].tasks)  # fmt: skip
    for name, dataset in val.items():
        LOGGER.info("validation %s: %s", name, dataset.describe())
    count = sum(p.size for p in model.parameters() if not p.stop_gradient)
    LOGGER.info("model: %.2f M parameters, heads %s, device %s, %d process(es)",
                count / 1e6, ", ".join(model.heads), paddle.get_device(), world_size)  # fmt: skip
    if not val:
        LOGGER.info("no evaluation during training (add --eval); best_model is not written")


if __name__ == "__main__":
    cli.run(main)
