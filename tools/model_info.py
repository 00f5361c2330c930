"""Says what a config costs before it is run: parameters, multiply-adds, memory and time, as tables to paste.

    python tools/model_info.py -c configs/allinone_traffic.yml
    python tools/model_info.py -c configs/allinone_traffic.yml --hardware a100-tf32 --json cost.json
    python tools/model_info.py -c configs/allinone_demo.yml --measure

No data is needed and nothing is trained: multiply-adds are counted from shapes, at the real input sizes. --measure runs one
real step on small inputs, prints it beside the estimate, and adds this machine to the devices.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def size(text: str) -> tuple[int, int]:
    """Returns (height, width) of "720x1280"."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, e.g. 720x1280, got {text!r}")
    return int(found[1]), int(found[2])


def named_size(text: str) -> tuple[str, tuple[int, int]]:
    """Returns ("seg", (512, 1024)) of "seg=512x1024"."""
    name, _, rest = text.partition("=")
    return name, size(rest)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--picture", type=size, default=(720, 1280), metavar="HxW",
                        help="original pictures, for tasks that show them at their own size (default: 720x1280)")  # fmt: skip
    parser.add_argument("--size", type=named_size, action="append", default=[], metavar="SOURCE=HxW",
                        help="training input of a source, if no transform of the config fixes it")  # fmt: skip
    parser.add_argument("--hardware", metavar="NAME", help="only this device of the table of times")
    parser.add_argument(
        "--device-tflops", type=float, metavar="X", help="a device of your own: what it sustains, in TFLOP/s"
    )
    parser.add_argument("--measure", action="store_true", help="run one real step on small inputs on this machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file too")
    arguments = parser.parse_args(argv)
    settings, _ = cli.load_settings(arguments)

    from ppmtl import build
    from ppmtl.studies.cost import estimate, train_sizes, without_weights
    from ppmtl.studies.cost_table import DEVICES, Device, as_json, find_device, markdown
    from ppmtl.studies.measure import measure_step
    from ppmtl.train import distributed

    devices = [find_device(arguments.hardware)] if arguments.hardware else list(DEVICES)
    if arguments.device_tflops is not None:
        if arguments.device_tflops <= 0:
            raise ValueError(f"--device-tflops: must be above 0, got {arguments.device_tflops}")
        devices.append(Device("given", arguments.device_tflops, "--device-tflops"))
    # A count is enough here: the class files may be on another machine, with the data
    counted = {n: dataclasses.replace(c, names=None) if c.count else c for n, c in settings.classes.items()}
    classes = build.build_classes(dataclasses.replace(settings, classes=counted))
    tasks = build.build_tasks(settings, classes)
    sizes = train_sizes(settings, dict(arguments.size))
    measured = None
    if arguments.measure:
        distributed.start(settings.device)
        measured = measure_step(lambda: build.build_model(settings, classes), settings, sizes)
        devices.append(Device("this machine", measured.flop_per_second / 1e12, "measured now, on small inputs"))
    model = without_weights(lambda: build.build_model(settings, classes))
    cost = estimate(model, settings, tasks, sizes, arguments.picture)
    print(markdown(cost, devices, measured))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(cost, devices, measured), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main)
