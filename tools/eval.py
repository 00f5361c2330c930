"""Evaluates weights on the validation sets: mIoU, Top-1/Top-5, COCO AP; tables, pictures, metrics.json.

python tools/eval.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "", weights=True)
    cli.add_tta_flags(parser)
    cli.add_switch(parser, "--classwise", "print the per-class tables (they are written to CSV files in any case)")
    parser.add_argument(
        "--output_eval", metavar="DIR", help="where metrics.json and pictures go (default: <save_dir>/eval)"
    )
    parser.add_argument("--visualize", type=int, default=0, metavar="N",
                        help="also draw the first N pictures of each set: labels left, prediction right")  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each set (a quick look)")
    arguments = parser.parse_args(argv)
    settings, _ = cli.load_settings(arguments)

    import cv2

    from ppmtl import build, report
    from ppmtl.drawing import draw_sample
    from ppmtl.engine.evaluate import evaluate

    cli.require_weights(settings)
    cli.require_data(settings, training=False, evaluation=True)
    tasks, backend = cli.load_trained(settings, tta=cli.tta_overrides(arguments))
    classes = {name: task.classes for name, task in tasks.items()}
    datasets = build.build_val_datasets(settings, classes)
    if not datasets:
        raise ValueError("eval.datasets: the config names no validation set for the chosen tasks")
    result = evaluate(
        tasks,
        datasets,
        backend,
        augment=arguments.tta,
        batch_size=settings.eval.batch_size,
        limit=arguments.limit,
        num_examples=arguments.visualize,
    )
    folder = Path(arguments.output_eval or Path(settings.save_dir) / "eval")
    extra = {"weights": settings.weights, "config": arguments.config, "tta": arguments.tta, "limit": arguments.limit}
    written = report.write(result, folder, extra)
    for name, examples in result.examples.items():
        for index, (sample, prediction) in enumerate(examples):
            picture = draw_sample(sample, {name: prediction}, tasks, settings.infer.draw_threshold)
            written.append(folder / f"{name}_{index:03d}.jpg")
            cv2.imencode(".jpg", picture[..., ::-1])[1].tofile(written[-1])
    print(f"wrote {', '.join(path.name for path in written)} to {folder}")
    print(report.text(result, classwise=arguments.classwise))
    return 0


if __name__ == "__main__":
    cli.run(main)
