"""Runs all heads on images, a video or a camera: masks, boxes with names, the class, the sentence; drawn and as JSON.

    python tools/infer.py --demo                                    the weights and images that come with the project
    python tools/infer.py -o weights=output/allinone_demo --infer_img street.jpg    (with the config inside the weights)
    python tools/infer.py -c ... -o weights=... --infer_dir images/ --recursive --output_dir output/infer
    python tools/infer.py -c ... -o weights=... --infer_list list.txt
    python tools/infer.py -c ... -o weights=... --video_file drive.mp4

Every task sees an image at the size that it is evaluated at, so what tools/eval.py measures is what is found here. The
backbone runs once per size; --per_task_size False shows all tasks one size, which is faster and less exact.
OUTPUT_DIR/predictions has the same answers for other tools: COCO results, CSV (docs/deployment.md).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli

if TYPE_CHECKING:
    from ppmtl.predict.pipeline import Pipeline


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "", weights=True)
    cli.add_input_flags(parser)
    cli.add_tta_flags(parser)
    cli.add_slice_flags(parser)
    cli.add_switch(parser, "--demo", "weights and images that come with the project; other flags still hold")
    parser.add_argument("--output_dir", default="output/infer", metavar="DIR", help="default: output/infer")
    parser.add_argument("--draw_threshold", "--threshold", type=cli.score, metavar="SCORE",
                        help="boxes below it are neither drawn nor written (default: infer.draw_threshold)")  # fmt: skip
    cli.add_limit(parser, "only the first N images, or frames")
    cli.add_per_task_size(parser)
    arguments = parser.parse_args(argv)
    if not arguments.demo:
        cli.require_input(parser, arguments)
    elif not arguments.config:
        arguments.overrides.insert(0, ["weights=demo"])
    settings = cli.load(arguments).settings

    from ppmtl import build
    from ppmtl.predict.pipeline import Pipeline, SharedSize

    print(f"weights: {build.require_weights(settings)}", file=sys.stderr)
    tasks, backend = build.open_trained(settings, cli.tta_overrides(arguments))
    shared: SharedSize = None if arguments.per_task_size else settings.infer.size or "first"
    pipeline = Pipeline(tasks, backend, augment=arguments.tta, shared_size=shared, slicing=cli.slicing(arguments))
    if note := pipeline.size_note():
        print(note, file=sys.stderr)
    threshold = settings.infer.draw_threshold if arguments.draw_threshold is None else arguments.draw_threshold
    return _predict(arguments, pipeline, threshold)


def _predict(arguments: argparse.Namespace, pipeline: "Pipeline", threshold: float) -> int:
    from ppmtl.predict.files import predict_files
    from ppmtl.predict.inputs import chosen_images
    from ppmtl.predict.video import predict_video
    from ppmtl.weights.location import demo_checkpoint

    folder, limit = Path(arguments.output_dir), arguments.limit
    if arguments.video_file or arguments.camera_id is not None:
        source = Path(arguments.video_file) if arguments.video_file else arguments.camera_id
        return predict_video(source, folder, pipeline, threshold=threshold, limit=limit)
    if arguments.demo and not (arguments.infer_img or arguments.infer_dir or arguments.infer_list):
        arguments.infer_dir = str(demo_checkpoint() / "images")
    return 1 if predict_files(chosen_images(arguments)[:limit], pipeline, folder, threshold=threshold) else 0


if __name__ == "__main__":
    cli.run(main)
