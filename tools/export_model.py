"""Exports trained weights as a bundle: one graph of the backbone, one per head, infer_cfg.yml with everything else.

    python tools/export_model.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model
    python tools/export_model.py -c ... -o weights=... --format onnx --tasks seg,det --input_shape 448 448
    python tools/export_model.py -c ... -o weights=... --format onnx --single_file final       (one graph, final boxes)
    python tools/export_model.py -c ... -o weights=... --format onnx --int8                    (8 bit for CPUs)

The bundle is written to <output_dir>/<config name>/ and needs nothing else of the project's data or checkpoints. It is
compared with the training graph on images of the validation sets (random ones where those are missing): raw
arrays number for number and each task's metric, written to export_report.json and .md. Beyond the tolerances the command
ends with code 1, and what was there before stays; the refused bundle is kept beside it as <config name>.failed.

Formats: paddle = .pdmodel, which Paddle 2.6 to 3.3 run; paddle-json = .json of Paddle 3; onnx (needs requirements-deploy.txt).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__ or "", weights=True)
    parser.add_argument("--format", default="paddle", choices=["paddle", "paddle-json", "onnx"], dest="graph_format",
                        help="of the graphs (default: paddle)")  # fmt: skip
    parser.add_argument("--input_shape", nargs="+", type=int, metavar="N",
                        help="fix the input: HEIGHT WIDTH, or BATCH 3 HEIGHT WIDTH as Paddle's tools write it; -1 = any. "
                             "Default: any batch, any size")  # fmt: skip
    parser.add_argument("--output_dir", default="output_inference", metavar="DIR", help="default: output_inference")
    parser.add_argument("--pointwise", default="linear", choices=["linear", "conv"],
                        help="conv: ConvNeXt's linears as 1x1 convolutions, which bfloat16 on CPU needs to be fast; see "
                             "--check_bf16 (default: linear)")  # fmt: skip
    parser.add_argument("--verify_images", type=cli.positive, default=8, metavar="N",
                        help="compare on the first N images of each validation set (default: 8)")  # fmt: skip
    cli.add_switch(
        parser, "--check_bf16", "also measure the bundle in bfloat16 on this CPU; judged by each task's metric"
    )
    parser.add_argument("--single_file", choices=["raw", "final"],
                        help="with --format onnx: also write model.onnx, backbone and heads in one graph. raw: the heads' "
                             "arrays; final: boxes come suppressed and sorted, one image per run")  # fmt: skip
    cli.add_switch(
        parser, "--int8", "with --format onnx: compute in 8 bit, calibrated on and judged by the validation data"
    )
    parser.add_argument("--calibration_images", type=cli.positive, metavar="N",
                        help="with --int8: images of each validation set that it is calibrated on (default: 32)")  # fmt: skip
    parser.add_argument("--guard_images", type=cli.positive, metavar="N",
                        help="with --int8: judge it by the first N images of each validation set (default: all)")  # fmt: skip
    parser.add_argument("--max_drop", type=fraction, metavar="X",
                        help="with --int8: refuse it if a task's main metric drops by more (default: 0.01)")  # fmt: skip
    parser.add_argument("--tolerance", nargs="+", default=[], metavar="NAME=VALUE",
                        help="largest difference that passes: of a task's raw array, e.g. probs, scores (1e-4), boxes "
                             "(0.05 px), of its metric (0.002) or bf16_metric (0.005)")  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """The exit code."""
    arguments = build_parser().parse_args(argv)
    run = cli.load(arguments)

    from ppmtl.bundle.export import export

    return export(run, arguments)


if __name__ == "__main__":
    cli.run(main)
