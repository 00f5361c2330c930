"""Measures our operations beside their references in one run, and prints how many times faster they are.

    python tools/benchmark.py                       # pip install ensemble-boxes pycocotools gives all references
    python tools/benchmark.py --only wbf --json out.json

Figures are medians of process CPU time on one thread, ours and the reference's rounds interleaved, so that load on the
machine hits both. Before it is timed, each pair is checked to give the same result. A reference that is not installed
is reported as "not run".
"""

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # these are read once, when numpy is imported
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from ppmtl import cli  # on import it sets what Paddle's matrix library reads, as in training
from ppmtl.studies.benchmark import CASES, markdown, measure


def main(argv: Sequence[str]) -> int:
    """Prints the table; the exit code is 1 if a result differs from its reference's. Missed targets are only reported."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--rounds", type=cli.positive, default=9, help="timed rounds per row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    arguments = parser.parse_args(argv)
    chosen = [case for case in CASES if arguments.only.lower() in case.name.lower()]
    if not chosen or arguments.rounds < 1:
        names = ", ".join(case.name for case in CASES)
        parser.error(f"--rounds must be at least 1, and --only must be part of one of: {names}")
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")  # ensemble-boxes warns about every box that it clips
    rows = [measure(case, arguments.rounds) for case in chosen]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, OpenCV {cv2.__version__}"
    setting = f"{versions}, {platform.machine()}"
    print(f"CPU time on one thread, medians of interleaved rounds; {setting}\n\n{markdown(rows)}")
    if arguments.json:
        content = {"setting": setting, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any("differ" in row["status"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
