"""Trains one model for several tasks.

python tools/train.py -c configs/allinone_traffic.yml --eval
python tools/train.py -c configs/allinone_demo.yml --eval --use_vdl -o train.epochs=5
python tools/train.py -c configs/allinone_traffic.yml -r auto          (continue after an interruption)
python -m paddle.distributed.launch --gpus 0,1,2,3 tools/train.py -c configs/allinone_traffic.yml --eval
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("-r", "--resume", nargs="?", const="auto", metavar="FOLDER|auto",
                        help="continue from a checkpoint folder; 'auto' (or no value) = the newest in save_dir")  # fmt: skip
    cli.add_switch(parser, "--eval", "evaluate during training (train.eval_every) and keep best_model")
    cli.add_switch(parser, "--use_vdl", "write VisualDL scalars and sample pictures")
    parser.add_argument("--vdl_log_dir", metavar="DIR", help="default: <save_dir>/vdl")
    parser.add_argument("--nprocs", type=int, default=1, metavar="N",
                        help="train with N processes on this machine's CPU, each with its own batch (default: 1); "
                        "Paddle's CPU kernels keep hardly more than one core busy. Several GPUs: use the launcher")  # fmt: skip
    arguments = parser.parse_args(argv)
    settings, _ = cli.load_settings(arguments)
    cli.require_data(settings, training=True, evaluation=arguments.eval)
    if arguments.nprocs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the processes start: each has one core, not all of them

        from paddle.distributed import spawn

        spawn(train, args=(arguments,), nprocs=arguments.nprocs, backend="gloo")
    else:
        train(arguments)
    return 0


def train(arguments: argparse.Namespace) -> None:
    """Trains in this process; the only one, or one of several that the launcher or --nprocs started."""
    settings, tree = cli.load_settings(arguments)

    import json

    import paddle

    from ppmtl import build
    from ppmtl.engine import checkpoint, distributed
    from ppmtl.engine.log import LOGGER, start_logging
    from ppmtl.engine.train import fit
    from ppmtl.models.pretrained import load_pretrained
    from ppmtl.report import without_nan

    rank, world_size = distributed.start(settings.device)
    save_dir = Path(settings.save_dir)
    resume = checkpoint.find_resume(save_dir, arguments.resume) if arguments.resume else None
    start_logging(save_dir, rank)
    classes = build.build_classes(settings)
    tasks = build.build_tasks(settings, classes)
    sources = build.build_sources(settings, classes, tasks, rank=rank, world_size=world_size)
    val = build.build_val_datasets(settings, classes) if arguments.eval else {}
    paddle.seed(settings.seed)
    model = build.build_model(settings, classes)
    if settings.weights and not resume:
        checkpoint.load_weights(model, checkpoint.read_tensors(settings.weights), settings.weights)
    elif not resume and (pretrained := getattr(model.backbone, "pretrained", None)):
        LOGGER.info("pretrained backbone: %s", load_pretrained(model.backbone, pretrained).text())

    description = build.describe(tree.data, classes)
    if rank == 0:
        (save_dir / "config.yml").write_text(tree.dump(), encoding="utf-8")
        (save_dir / "environment.json").write_text(json.dumps(description["environment"], indent=1), encoding="utf-8")
    LOGGER.info("environment: %s", ", ".join(f"{k} {v}" for k, v in description["environment"].items()))
    for name, source in sources.items():
        LOGGER.info(
            "source %s: %s, batch %d -> %s",
            name,
            source.dataset.describe(),
            source.batch_size,
            settings.sources[name].tasks,
        )
    for name, dataset in val.items():
        LOGGER.info("validation %s: %s", name, dataset.describe())
    count = sum(p.size for p in model.parameters() if not p.stop_gradient)
    LOGGER.info("model: %.2f M trainable parameters, heads %s, device %s, %d process(es)",
                count / 1e6, ", ".join(model.heads), paddle.get_device(), world_size)  # fmt: skip
    if not val:
        LOGGER.info("no evaluation during training (add --eval); best_model is not written")
    vdl = Path(arguments.vdl_log_dir or save_dir / "vdl") if arguments.use_vdl else None
    progress = fit(
        settings, model, tasks, sources, val, description=without_nan(description), resume=resume, vdl_dir=vdl
    )
    saved = [str(save_dir / name) for name in ("best_model", "latest") if (save_dir / name).exists()]
    LOGGER.info("done: %d steps; weights in %s", progress.step, ", ".join(saved) or "no file: train.save_every is null")


if __name__ == "__main__":
    cli.run(main)
