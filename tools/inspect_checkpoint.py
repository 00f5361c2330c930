"""Shows what is in a checkpoint and whether it is intact, without building a model and without Paddle.

    python tools/inspect_checkpoint.py output/allinone_demo                    every checkpoint of a run
    python tools/inspect_checkpoint.py output/allinone_demo/best_model
    python tools/inspect_checkpoint.py output/allinone_demo/latest --filter 'optimizer.*heads.det' --stats
    python tools/inspect_checkpoint.py convnext_large.pth --tensors
    python tools/inspect_checkpoint.py output/a/latest --compare output/b/latest

Read are checkpoint folders of this project, .safetensors, .pdparams, .pdopt and .pth. Nothing in them is executed.
Exit code: 0 = intact (and, with --compare, equal), 1 = damaged or unreadable, 3 = intact, but the two differ.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.predict.report import without_nan
from ppmtl.studies import inspection
from ppmtl.train.checkpoint import locate


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="FILE_OR_FOLDER", type=Path)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument(
        "--stats", action="store_true", help="list them with minimum, maximum, mean, NaN and infinities"
    )
    parser.add_argument("--filter", metavar="PATTERN", default="",
                        help="list the tensors whose 'file: name' this regular expression matches somewhere")  # fmt: skip
    parser.add_argument("--compare", metavar="OTHER", type=Path, help="say which tensors differ, and by how much")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    given = parser.parse_args(argv)
    try:
        pattern = re.compile(given.filter)
    except re.error as error:
        parser.error(f"--filter: {given.filter!r} is no regular expression ({error})")
    path, listed = locate(given.path), bool(given.tensors or given.stats or given.filter)
    document = inspection.describe_run(path) or inspection.describe(path, pattern, tensors=listed, stats=given.stats)
    if given.compare:
        document["comparison"] = inspection.differences(path, locate(given.compare), pattern)
    lines = [json.dumps(without_nan(document), indent=1)] if given.json else inspection.text(document)
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if document["damaged"]:
        return 1
    return 0 if all(found["same"] for found in document.get("comparison", {}).values()) else 3


if __name__ == "__main__":
    cli.run(main)
