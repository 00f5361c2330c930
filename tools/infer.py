"""Runs all heads on images: masks, boxes with names, the class, the sentence; drawn and as JSON.

    python tools/infer.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model --infer_img street.jpg
    python tools/infer.py -c ... -o weights=... --infer_dir images/ --output_dir output/infer

By default every head sees the image at one size (infer.size), so the backbone runs once. --per_task_size shows it to
every task at the task's own size instead, which is what evaluation does: more exact, and one backbone run per size.
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
    cli.add_slice_flags(parser)
    parser.add_argument("--infer_img", metavar="FILE", help="one image (wins over --infer_dir)")
    parser.add_argument("--infer_dir", metavar="DIR", help="all images of a folder")
    parser.add_argument("--output_dir", default="output/infer", metavar="DIR", help="default: output/infer")
    parser.add_argument("--draw_threshold", type=float, metavar="SCORE", help="boxes below it are not drawn")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of --infer_dir")
    cli.add_switch(parser, "--per_task_size", "show the image to every task at the task's own size")
    arguments = parser.parse_args(argv)
    if not arguments.infer_img and not arguments.infer_dir:
        parser.error("give --infer_img FILE or --infer_dir DIR")
    settings = cli.load(arguments).settings

    from ppmtl import build
    from ppmtl.data.images import find_images
    from ppmtl.predict.files import predict_files
    from ppmtl.predict.pipeline import Pipeline, SharedSize

    build.require_weights(settings)
    paths = (
        [Path(arguments.infer_img)]
        if arguments.infer_img
        else find_images(Path(arguments.infer_dir))[: arguments.limit]
    )
    tasks, backend = build.open_trained(settings, cli.tta_overrides(arguments))
    threshold = settings.infer.draw_threshold if arguments.draw_threshold is None else arguments.draw_threshold
    shared: SharedSize = None if arguments.per_task_size else settings.infer.size or "first"
    slicing = cli.slicing(arguments)
    pipeline = Pipeline(tasks, backend, augment=arguments.tta, shared_size=shared, slicing=slicing)
    failed = predict_files(paths, pipeline, Path(arguments.output_dir), threshold=threshold)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
