"""Draws demo data for all three tasks in the challenge's tree and formats: no download, and every label is exact.

    python tools/make_demo_data.py --out demo_data --preset demo   # 10 signs, 10 vehicles: allinone_demo.yml
    python tools/make_demo_data.py --out datasets                  # 45 signs, 196 vehicles, as in the challenge
    python tools/make_demo_data.py --out tiny --train 8 --val 4 --test 2 --size 64 96 --det_size 96 96 --cls_size 32 48

The same request gives the same bytes on every run, whatever --workers; repeating it on finished data does nothing.
DIR/preview.png shows what was made. DIR/track1_test_data/ground_truth holds the truth of the test images.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_data.dataset import TASKS, Summary, default_workers, make_dataset
from demo_data.request import SPLITS, DemoRequest
from ppmtl import cli

_SIZES = {
    "size": "street scenes (segmentation)",
    "det_size": "road sign scenes",
    "cls_size": "vehicles, which vary around it",
}
_PRESETS = {"challenge": DemoRequest(), "demo": DemoRequest(sign_classes=10, vehicle_classes=10)}


def build_parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    default = DemoRequest()
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="the directory to make; a config's data_root")
    parser.add_argument(
        "--preset", choices=sorted(_PRESETS), default="challenge", help="class counts (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help=f"default: {default.seed}")
    for name, what in _SIZES.items():
        parser.add_argument(f"--{name}", nargs=2, type=int, metavar=("H", "W"),
                            help=f"{what} (default: {' '.join(map(str, getattr(default, name)))})")  # fmt: skip
    for task in TASKS:
        counts = " ".join(map(str, default.images(task).values()))
        parser.add_argument(f"--{task}_images", nargs=3, type=int, metavar=("TRAIN", "VAL", "TEST"),
                            help=f"how many images for {task} (default: {counts})")  # fmt: skip
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=int, metavar="N", help=f"how many {split} images for every task")
    parser.add_argument("--seg_classes", type=int, choices=[19], default=19, help="always 19; accepted for symmetry")
    parser.add_argument("--sign_classes", type=int, metavar="N", help="1..45, spread over the kinds of signs")
    parser.add_argument("--vehicle_classes", type=int, metavar="N", help="1..196, the most different shapes first")
    parser.add_argument(
        "--workers", type=int, default=default_workers(), metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace demo data of another request; never other data"
    )
    return parser


def request_of(arguments: argparse.Namespace) -> DemoRequest:
    """Returns the preset with every flag that was given in place.

    Raises:
        ValueError: naming every value out of range.
    """
    preset = _PRESETS[arguments.preset]
    given = {name: getattr(arguments, name) for name in ("seed", "sign_classes", "vehicle_classes")}
    given |= {name: tuple(getattr(arguments, name) or ()) or None for name in _SIZES}
    for task in TASKS:
        counts = preset.images(task)
        counts |= {split: count for split in SPLITS if (count := getattr(arguments, split)) is not None}
        own = getattr(arguments, f"{task}_images")
        given[f"{task}_images"] = tuple(own) if own else tuple(counts.values())
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def show_progress(done: int, total: int) -> None:
    """Prints one line that is updated in place on a terminal, and every tenth elsewhere."""
    if sys.stdout.isatty():
        if done % 10 == 0 or done == total:
            print(f"\rdrawing {done}/{total}", end="\n" if done == total else "", flush=True)
    elif done * 10 // total > (done - 1) * 10 // total:
        print(f"drawing {done}/{total}", flush=True)


def report(summary: Summary) -> str:
    """Returns the counts per split and class as text."""
    lines = []
    units = {"seg": "images with it", "det": "boxes", "cls": "images"}
    for task in TASKS:
        counts = ", ".join(f"{count} {split}" for split, count in summary.images[task].items())
        lines.append(f"{task}: {counts} images")
        if task == "det":
            lines[-1] += (
                f"; without any sign: {', '.join(f'{count} {split}' for split, count in summary.empty.items())}"
            )
        splits = summary.classes[task]
        lines.append(f"  {units[task]} per class, {'/'.join(splits)}:")
        names = list(splits["train"])
        cells = [f"{name} {'/'.join(str(splits[split][name]) for split in splits)}" for name in names]
        width = max(map(len, cells)) + 2
        per_line = max(1, 112 // width)
        shown = cells if len(cells) <= 60 else cells[:20]
        for start in range(0, len(shown), per_line):
            lines.append("    " + "".join(cell.ljust(width) for cell in shown[start : start + per_line]).rstrip())
        if len(shown) < len(cells):
            fewest = min(splits["train"].values()), max(splits["train"].values())
            lines.append(
                f"    ... and {len(cells) - len(shown)} more; {fewest[0]} to {fewest[1]} train images per class"
            )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0, or 2 when the request or the directory will not do."""
    arguments = build_parser().parse_args(argv)
    out, start = Path(arguments.out), time.perf_counter()
    try:
        request = request_of(arguments)
        summary = make_dataset(
            out, request, workers=arguments.workers, overwrite=arguments.overwrite, progress=show_progress
        )
    except (ValueError, OSError) as error:
        print(f"make_demo_data.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        print(f"\ninterrupted: {out} is incomplete; the same command starts anew", file=sys.stderr)
        return 130
    print(report(summary))
    if summary.already_there:
        print(f"{out} holds exactly this data already: nothing to do")
    else:
        print(f"wrote {out} in {time.perf_counter() - start:.0f} s; look at {out / 'preview.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
