"""Makes the weights that come with the project (ppmtl/demo) of a trained demo model: float16, measured, with a few images.

    python tools/make_demo_weights.py                                      (after make demo; the same as make demo-weights)
    python tools/make_demo_weights.py output/other --data_root demo_data --out weights_of_mine

Its state.json records seed, commit, config and what the rounded weights measure on the validation images. They replace the old
ones only if that is not worse than what the training measured.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.weights.location import demo_checkpoint


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=Path("output/allinone_demo"), metavar="RUN",
                        help="a run's folder or a checkpoint (default: output/allinone_demo)")  # fmt: skip
    parser.add_argument("--data_root", type=Path, default=Path("demo_data"), metavar="DIR", help="default: demo_data")
    parser.add_argument("--out", type=Path, default=demo_checkpoint(), metavar="DIR", help="default: ppmtl/demo")
    cli.add_limit(parser, "measure on the first N images of each set only; the record says so")
    arguments = parser.parse_args(argv)

    from ppmtl.studies.demo_weights import make

    record = make(arguments.source, arguments.out, arguments.data_root, limit=arguments.limit)
    print(json.dumps(record, indent=1))
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"wrote {arguments.out} ({size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    cli.run(main)
