"""Runs an exported bundle on images, a video or a camera: masks, boxes with names, the class, the sentence; drawn and as JSON.

    python deploy/python/infer.py --model_dir output_inference/allinone_demo --image_file street.jpg
    python deploy/python/infer.py --model_dir ... --image_dir images/ --batch_size 4 --tasks seg,det
    python deploy/python/infer.py --model_dir ... --video_file drive.mp4 --output_dir output/drive
    python deploy/python/infer.py --model_dir ... --image_file large.jpg --slice_infer --slice_size 640
    python deploy/python/infer.py --model_dir ... --image_dir images/ --run_benchmark

The results are those of tools/infer.py with the same weights, files and all; neither checkpoints nor the training code are
needed. Every task sees an image at the size that it is evaluated at: the backbone runs once per size. Heads that --tasks
leaves out are not even loaded.
--device GPU and --run_mode trt_fp32|trt_fp16 follow Paddle's documentation and were not run: no GPU was at hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppmtl import cli

if TYPE_CHECKING:
    from ppmtl.predict.pipeline import Pipeline


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 1 if an image could not be read or a video broke off."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    cli.require_input(parser, arguments)
    views, slicing = cli.tta_overrides(arguments), cli.slicing(arguments)

    from ppmtl.bundle.engines.backend import open_backend
    from ppmtl.bundle.reading import read_bundle
    from ppmtl.predict.pipeline import Pipeline
    from ppmtl.predict.video import predict_video

    bundle = read_bundle(arguments.model_dir, arguments.tasks)
    backend = open_backend(
        bundle,
        device=arguments.device,
        cpu_threads=arguments.cpu_threads,
        mkldnn=arguments.enable_mkldnn,
        bf16=arguments.enable_bf16,
        run_mode=arguments.run_mode,
    )
    for task in bundle.tasks.values():
        task.change_tta(views)
    pipeline = Pipeline(
        bundle.tasks,
        backend,
        augment=arguments.tta,
        shared_size=bundle.shown_at(per_task_size=arguments.per_task_size),
        batch_size=arguments.batch_size,
        slicing=slicing,
    )
    if note := pipeline.size_note():
        print(note, file=sys.stderr)
    threshold = bundle.settings.infer.draw_threshold if arguments.threshold is None else arguments.threshold
    if arguments.video_file or arguments.camera_id is not None:
        source = Path(arguments.video_file) if arguments.video_file else arguments.camera_id
        return predict_video(source, Path(arguments.output_dir), pipeline, threshold=threshold, limit=arguments.limit)
    return _images(arguments, pipeline, threshold)


def _images(arguments: argparse.Namespace, pipeline: Pipeline, threshold: float) -> int:
    from timing import benchmark

    from ppmtl.data.images import read_image
    from ppmtl.predict.files import predict_files
    from ppmtl.predict.inputs import chosen_images

    paths = chosen_images(arguments)[: arguments.limit]
    if arguments.run_benchmark:
        images = [(read_image(path), str(path)) for path in paths[: arguments.benchmark_runs]]
        print(benchmark(pipeline, images, arguments.benchmark_runs))
        return 0
    folder = Path(arguments.output_dir) if arguments.save_results else None
    return int(predict_files(paths, pipeline, folder, threshold=threshold) > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model_dir", required=True, metavar="DIR", help="what tools/export_model.py wrote")
    cli.add_input_flags(parser)
    cli.add_limit(parser, "only the first N images, or frames")
    add("--tasks", type=cli.names, metavar="seg,det", help="only these heads (default: all)")
    add("--batch_size", type=cli.positive, default=1, metavar="N", help="images or frames per run (default: 1)")
    add("--threshold", "--draw_threshold", type=cli.score, metavar="SCORE",
        help="boxes below it are neither drawn nor written (default: the bundle's)")  # fmt: skip
    add("--output_dir", default="output/infer", metavar="DIR", help="default: output/infer")
    cli.add_switch(parser, "--save_results", "write drawn images, JSON and label maps; False: JSON to stdout instead",
                   default=True)  # fmt: skip
    cli.add_per_task_size(parser)
    add("--device", default="CPU", metavar="CPU|GPU", help="GPU:1 = the second card (default: CPU)")
    add("--run_mode", default="paddle", choices=["paddle", "trt_fp32", "trt_fp16"],
        help="trt_*: TensorRT, on GPU only (default: paddle)")  # fmt: skip
    add("--cpu_threads", type=cli.positive, metavar="N",
        help="default: OMP_NUM_THREADS, else every core that this process may use")  # fmt: skip
    cli.add_switch(parser, "--enable_mkldnn", "oneDNN on CPU (default: True)", default=True)
    cli.add_switch(
        parser, "--enable_bf16", "bfloat16 on CPUs that compute it; export with --pointwise conv to gain by it"
    )
    cli.add_tta_flags(parser)
    cli.add_slice_flags(parser)
    cli.add_switch(parser, "--run_benchmark", "measure instead of writing: milliseconds of each stage, throughput")
    add("--benchmark_runs", type=cli.positive, default=50, metavar="N",
        help="timed runs of --batch_size images (default: 50)")  # fmt: skip
    return parser


if __name__ == "__main__":
    cli.run(main)
