"""Evaluates weights on the validation sets: mIoU, Top-1/Top-5, COCO AP; tables, pictures, metrics.json.

python tools/eval.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model
python tools/eval.py -c ... -o weights=... --nprocs 2        (the pictures dealt out to 2 CPU processes, the same figures)
python -m paddle.distributed.launch --gpus 0,1,2,3 tools/eval.py -c ... -o weights=...
python tools/eval.py -c ... --bundle output_inference/allinone_demo    (what was exported, in its own engine)
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "", weights=True)
    cli.add_tta_flags(parser)
    cli.add_slice_flags(parser)
    parser.add_argument("--bundle", metavar="DIR", help="evaluate what tools/export_model.py wrote instead of weights; "
                        "tasks and classes are the bundle's, the data sets the config's")  # fmt: skip
    cli.add_switch(parser, "--classwise", "print the per-class tables (they are written to CSV files in any case)")
    parser.add_argument(
        "--output_eval", metavar="DIR", help="for metrics.json and pictures (default: <save_dir>/eval, or eval_bundle)"
    )
    parser.add_argument("--visualize", type=int, default=0, metavar="N",
                        help="also draw the first N pictures of each set: labels left, prediction right")  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each set (a quick look)")
    cli.add_nprocs(parser, "evaluate")
    arguments = parser.parse_args(argv)
    if arguments.bundle and arguments.tasks is None:
        arguments.tasks = cli.exported_tasks(arguments.bundle)
    settings, _ = cli.load_settings(arguments)
    if not arguments.bundle:
        cli.require_weights(settings)
    cli.require_data(settings, training=False, evaluation=True)
    cli.launch(measure, arguments)
    return 0


def measure(arguments: argparse.Namespace) -> None:
    """Evaluates in this process; the only one, or one of several that the launcher or --nprocs started."""
    settings, _ = cli.load_settings(arguments)

    import cv2

    from ppmtl import build
    from ppmtl.predict import report
    from ppmtl.predict.drawing import draw_sample
    from ppmtl.predict.evaluate import evaluate
    from ppmtl.train import distributed

    views = cli.tta_overrides(arguments)
    if arguments.bundle:
        tasks, backend = cli.load_exported(arguments.bundle, settings, views)
    else:
        tasks, backend = cli.load_trained(settings, views)
    classes = {name: task.classes for name, task in tasks.items()}
    datasets = build.build_val_datasets(settings, classes)
    if not datasets:
        raise ValueError("eval.datasets: the config names no validation set for the chosen tasks")
    result = evaluate(
        tasks,
        datasets,
        backend,
        augment=arguments.tta,
        slicing=cli.slicing(arguments),
        batch_size=settings.eval.batch_size,
        limit=arguments.limit,
        num_examples=arguments.visualize,
        processes=(processes := distributed.processes()),
    )
    if processes.rank != 0:
        return
    folder = Path(arguments.output_eval or Path(settings.save_dir) / ("eval_bundle" if arguments.bundle else "eval"))
    what = {"bundle": arguments.bundle} if arguments.bundle else {"weights": settings.weights}
    extra = {**what, "config": arguments.config, "tta": arguments.tta, "limit": arguments.limit}
    written = report.write(result, folder, extra)
    for name, examples in result.examples.items():
        for index, (sample, prediction) in enumerate(examples):
            picture = draw_sample(sample, {name: prediction}, tasks, settings.infer.draw_threshold)
            written.append(folder / f"{name}_{index:03d}.jpg")
            cv2.imencode(".jpg", picture[..., ::-1])[1].tofile(written[-1])
    print(f"wrote {', '.join(path.name for path in written)} to {folder}")
    print(report.text(result, classwise=arguments.classwise))


if __name__ == "__main__":
    cli.run(main)
