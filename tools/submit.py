"""Writes the challenge's submission file, checks one, and scores it where the ground truth is known.

python tools/submit.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model --out pred_results.json
python tools/submit.py -c ... -o weights=... --tta --out pred_results.json    (interrupted? the same command goes on)
python tools/submit.py -c ... -o weights=... --nprocs 2                      (2 CPU processes, the same bytes)
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
    if argv and argv[0] == "check":
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        add_check(parser.add_subparsers(metavar="COMMAND", required=True))
        arguments = parser.parse_args(argv)
        return int(arguments.run(arguments))
    return write(argv)


def write(argv: Sequence[str]) -> int:
    """Predicts the test lists and writes the file; returns the exit code."""
    parser = cli.parser(__doc__ or "", weights=True)
    cli.add_tta_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("pred_results.json"), help="default: pred_results.json")
    parser.add_argument("--form", choices=["list", "dict"], default="list",
                        help="list = what the official scorer reads (default); dict = as in the README")  # fmt: skip
    parser.add_argument("--max_boxes", type=int, default=100, metavar="N",
                        help="per picture, the best by score (default: 100)")  # fmt: skip
    cli.add_switch(parser, "--restart", "throw away what an interrupted run left instead of going on from it")
    cli.add_nprocs(parser, "predict")
    arguments = parser.parse_args(argv)
    settings, _ = cli.load_settings(arguments)
    cli.require_weights(settings)
    cli.launch(predict, arguments)
    return 0


def predict(arguments: argparse.Namespace) -> None:
    """Predicts in this process; the only one, or one of several that the launcher or --nprocs started."""
    settings, _ = cli.load_settings(arguments)

    from ppmtl.challenge.predict import open_writer, predict_test_set
    from ppmtl.train import distributed
    from ppmtl.train.checkpoint import read_state

    weights = cli.require_weights(settings)
    views = cli.tta_overrides(arguments)
    tasks, backend = cli.load_trained(settings, tta=views)
    fingerprint = {
        "weights": read_state(weights).get("digests", weights),
        "data_root": str(Path(settings.data_root).resolve()),
        "tasks": {name: repr({k: v for k, v in vars(task).items() if k != "classes"}) for name, task in tasks.items()},
        "tta": arguments.tta,
    }
    seg_classes = next((len(t.classes) for t in tasks.values() if t.task_type == "segmentation"), 19)
    processes = distributed.processes()
    options = {"form": arguments.form, "max_boxes": arguments.max_boxes, "seg_classes": seg_classes}
    resume = not arguments.restart
    with open_writer(arguments.out, processes, fingerprint=fingerprint, resume=resume, **options) as writer:
        root = Path(settings.data_root)
        counts = predict_test_set(root, tasks, backend, writer, augment=arguments.tta, processes=processes)
        if processes.rank != 0:
            return
        path = writer.finish()
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB); predicted now: {counts}")
    print(f"check it: python tools/submit.py check {path} -c {arguments.config}")


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
    from ppmtl.challenge import Expected, check, score
    from ppmtl.challenge.expected import TEST_FOLDER

    if not arguments.file.is_file():
        parser.error(f"{arguments.file}: no such file")
    root = arguments.gt
    counts: dict[str, int] = {}
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
    from ppmtl.config.settings import Settings

    settings = check(Settings, load_config(arguments.config, [item for group in arguments.overrides for item in group]))
    counts: dict[str, int] = {}
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
