"""Evaluates weights on the validation sets: mIoU, Top-1/Top-5, COCO AP; tables, plots, metrics.json.

python tools/eval.py -o weights=output/allinone_demo         (its best_model, with the config inside it; -c takes another)
python tools/eval.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model
python tools/eval.py -c ... -o weights=... --nprocs 2        (2 CPU processes share the images; the same figures)
python -m paddle.distributed.launch --gpus 0,1,2,3 tools/eval.py -c ... -o weights=...
python tools/eval.py -c ... --bundle output_inference/allinone_demo    (what was exported, in its own engine)
python tools/eval.py -c ... -o weights=... --save_predictions           (COCO results, CSV, label maps in <folder>/predictions)
python tools/eval.py -c ... --predictions output/allinone_demo/eval/predictions   (measured again, without a network)
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.config import ConfigError

if TYPE_CHECKING:
    from ppmtl.build import Run


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "", weights=True)
    cli.add_tta_flags(parser)
    cli.add_slice_flags(parser)
    parser.add_argument("--bundle", metavar="DIR", help="evaluate what tools/export_model.py wrote instead of weights; "
                        "tasks and classes are the bundle's, the data sets the config's")  # fmt: skip
    cli.add_switch(parser, "--save_predictions", "also write every prediction to <output_eval>/predictions: COCO results, "
                   "CSV, label maps")  # fmt: skip
    parser.add_argument("--predictions", metavar="PATH", help="measure what --save_predictions wrote, or one file of "
                        "the same form for one task (its name, or --tasks), instead of running a network")  # fmt: skip
    cli.add_switch(parser, "--classwise", "print the per-class tables (they are written to CSV files in any case)")
    parser.add_argument(
        "--output_eval", metavar="DIR",
        help="for metrics.json and images (default: <save_dir>/eval, eval_bundle or eval_predictions; with --tasks or --limit "
        "a folder beside it, e.g. eval_seg_first8)",
    )  # fmt: skip
    parser.add_argument("--visualize", type=cli.count, default=0, metavar="N",
                        help="also draw the first N images of each set: labels left, prediction right")  # fmt: skip
    cli.add_limit(parser, "only the first N images of each set (a quick look)")
    cli.add_nprocs(parser, "evaluate")
    arguments = parser.parse_args(argv)

    from ppmtl import build

    chosen = arguments.tasks
    if arguments.bundle and chosen is None:
        arguments.tasks = build.exported_tasks(arguments.bundle)
    if arguments.predictions:
        _check_stored(arguments)
    run = cli.load(arguments)
    arguments.only = [] if chosen is None else list(run.settings.tasks)
    if not arguments.bundle and not arguments.predictions:
        build.require_weights(run.settings)
    build.require_data(run.settings, training=False, evaluation=True)
    cli.launch(measure, arguments.nprocs, run, arguments)
    return 0


def _check_stored(arguments: argparse.Namespace) -> None:
    """Refuses flags that say how to predict; takes tasks and --limit from the files where none are given."""
    from ppmtl.predict.stored import stored_tasks

    flags = ("bundle", "tta", "slice_infer", "save_predictions")
    if given := [f"--{flag}" for flag in flags if getattr(arguments, flag)]:
        raise ConfigError([f"--predictions are measured as they are: leave {', '.join(given)} out"])
    tasks, limit = stored_tasks(Path(arguments.predictions))
    if arguments.tasks is None:
        arguments.tasks = tasks
    if arguments.limit is None and limit is not None:
        print(f"{arguments.predictions} was made with --limit {limit}: these images are measured")
        arguments.limit = limit


def measure(run: "Run", arguments: argparse.Namespace) -> None:
    """Evaluates in this process; the only one, or one of several that the launcher or --nprocs started."""
    from ppmtl.start import evaluate_run

    views, slicing = cli.tta_overrides(arguments), cli.slicing(arguments)
    evaluate_run(
        run, views, bundle=arguments.bundle, predictions=arguments.predictions, augment=arguments.tta, slicing=slicing,
        save_predictions=arguments.save_predictions, limit=arguments.limit, visualize=arguments.visualize,
        folder=arguments.output_eval, classwise=arguments.classwise, config=arguments.config, only=arguments.only,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
