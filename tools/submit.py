"""Checks a submission file of the challenge, and scores it where the ground truth is known.

python tools/submit.py check pred_results.json --gt demo_data
python tools/submit.py check pred_results.json -c configs/allinone_demo.yml
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_check(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))


def add_check(commands: Any) -> None:
    """Adds ``check``."""
    parser = commands.add_parser(
        "check",
        description="Lists everything that is wrong with a submission file; exit code 1 if there are errors. Warnings "
        "are things that are read here but cost points or crash the official scorer.",
    )
    parser.add_argument("file", type=Path, help="the submission (JSON)")
    parser.add_argument("--gt", metavar="DIR", help="data root: the test lists under DIR/track1_test_data are checked, "
                        "and if ground_truth is there, the file is scored (default: data_root of -c)")  # fmt: skip
    parser.add_argument("-c", "--config", metavar="YML", help="take class counts and data_root from this config")
    parser.add_argument("-o", "--opt", dest="overrides", nargs="+", action="append", default=[], metavar="KEY=VALUE",
                        help="override config values")  # fmt: skip
    parser.add_argument("--show", type=int, default=20, metavar="N", help="print at most N findings of each kind")
    parser.set_defaults(run=lambda arguments: run_check(parser, arguments))


def run_check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Returns 0 if the file has no errors, else 1."""
    from ppmtl.submission import Expected, check, score
    from ppmtl.submission.expected import TEST_FOLDER

    if not arguments.file.is_file():
        parser.error(f"{arguments.file}: no such file")
    root, counts = arguments.gt, {}
    if arguments.config:
        settings, counts = class_counts(arguments)
        root = root or settings.data_root
    if root is None:
        parser.error("give --gt DIR (the data root) or -c YML, so that the test lists can be compared")
    if not (Path(root) / TEST_FOLDER).is_dir():
        parser.error(f"{Path(root) / TEST_FOLDER}: no such folder; --gt is the data root, e.g. datasets or demo_data")
    findings = check(arguments.file, Expected.from_root(root, **counts))
    for severity in ("error", "warning"):
        kind = [finding for finding in findings if finding.severity == severity]
        print(*kind[: arguments.show], sep="\n", end="\n" if kind[: arguments.show] else "")
        if len(kind) > arguments.show:
            print(f"... and {len(kind) - arguments.show} more {severity}s (--show N)")
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{arguments.file}: {errors} errors, {len(findings) - errors} warnings")
    truth = Path(root) / TEST_FOLDER / "ground_truth"
    if truth.is_dir() and not errors:
        seg = {"seg_classes": counts["seg_classes"]} if counts else {}
        print_scores(score(arguments.file, truth, **seg))
    return 1 if errors else 0


def class_counts(arguments: argparse.Namespace) -> tuple[Any, dict[str, int]]:
    """Returns the config's settings and {"seg_classes", "cls_classes"}."""
    from ppmtl import build
    from ppmtl.config import check, load_config
    from ppmtl.run import Settings

    settings = check(Settings, load_config(arguments.config, [item for group in arguments.overrides for item in group]))
    counts = {}
    for task in ("seg", "cls"):
        if task not in settings.classes:
            raise ValueError(f"{arguments.config}: classes.{task} is missing; a submission answers seg, cls and det")
        counts[f"{task}_classes"] = settings.classes[task].count or len(build.build_classes(settings)[task])
    return settings, counts


def print_scores(result: dict[str, Any]) -> None:
    """Prints the figures of each convention, and the notes."""
    print("\n| convention | mIoU | Top-1 | AP50 | score |\n|---|---|---|---|---|")
    for convention, figures in result.items():
        if convention != "notes":
            print(
                f"| {convention} | " + " | ".join(f"{figures[k]:.4f}" for k in ("miou", "top1", "ap50", "score")) + " |"
            )
    print(*(f"note: {note}" for note in result["notes"]), sep="\n")


if __name__ == "__main__":
    cli.run(main)
