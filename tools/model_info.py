"""Says what a config costs before it is run: parameters, multiply-adds, memory and time, as tables to paste.

    python tools/model_info.py -c configs/allinone_traffic.yml
    python tools/model_info.py -c configs/allinone_traffic.yml --hardware a100-tf32 --json cost.json
    python tools/model_info.py -c configs/allinone_demo.yml --measure

No data is needed and nothing is trained. Times on the listed devices follow from what a large net sustains there, so they are
"unknown" for small nets. --measure times this machine with this net: some forward and backward passes of every source.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def size(text: str) -> tuple[int, int]:
    """(height, width) of "720x1280"."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, e.g. 720x1280, got {text!r}")
    return int(found[1]), int(found[2])


def named_size(text: str) -> tuple[str, tuple[int, int]]:
    """("seg", (512, 1024)) of "seg=512x1024"."""
    name, _, rest = text.partition("=")
    return name, size(rest)


def main(argv: Sequence[str]) -> int:
    """Prints the tables."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--image_size", "--picture", type=size, default=(720, 1280), metavar="HxW",
                        help="original images, for tasks that show them at their own size (default: 720x1280)")  # fmt: skip
    parser.add_argument("--size", type=named_size, action="append", default=[], metavar="SOURCE=HxW",
                        help="training input of a source, if no transform of the config fixes it")  # fmt: skip
    parser.add_argument("--hardware", metavar="NAME", help="only this device of the table of times")
    parser.add_argument("--device-tflops", type=float, metavar="X", help="a device of your own: TFLOP/s sustained")
    parser.add_argument("--measure", action="store_true", help="time forward and backward passes on this machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file too")
    arguments = parser.parse_args(argv)
    settings = cli.load(arguments).settings

    from ppmtl.studies.model_info import as_json, choose_devices, markdown, study

    devices = choose_devices(arguments.hardware, arguments.device_tflops)
    results = study(settings, devices, dict(arguments.size), arguments.image_size, measure=arguments.measure)
    print(markdown(*results))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(*results), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main)
