"""Compares our layers, transforms and metrics with the packages that they reproduce, and prints a table.

    make parity                              # sets up the references in .venv-suites and runs this
    python tools/parity.py --only heads      # one room: backbone, heads, pictures, measures
    python tools/parity.py --json parity.json

Both sides get the same seeded random weights, inputs and draws. The exit code is 1 when anything differs by more than
its tolerance. A reference that is not installed, or does not run, is "not run" and never counts as equal.
"""

import argparse
import contextlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when numpy is imported; one order of summation
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROOMS = ("backbone", "heads", "pictures", "measures")


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROOMS, default=ROOMS, help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows, with versions")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # the suites warn about Python and numpy, not about results

    from parity_checks.outcome import as_record, release, table

    outcomes = []
    for room in arguments.only:
        print(f"{room} ...", file=sys.stderr, flush=True)
        with contextlib.redirect_stdout(sys.stderr):  # the suites print when imported
            outcomes += importlib.import_module(f"parity_checks.{room}").checks()
    count = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in ("equal", "DIFFERENT", "not run")}
    versions = ", ".join(release(name) for name in ("paddlepaddle", "numpy", "opencv-python-headless"))
    print(table(outcomes))
    print(f"\n{', '.join(f'{n} {verdict}' for verdict, n in count.items())}; on {versions}")
    if arguments.json:
        document = {"versions": versions, "count": count, "rows": [as_record(o) for o in outcomes]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(count["DIFFERENT"] > 0 or count["equal"] == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
