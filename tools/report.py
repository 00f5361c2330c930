"""Makes one HTML page of a run: curves, tables, confusion matrices, best and worst images, config. Opens without network.

    python tools/report.py output/allinone_demo
    python tools/report.py output/allinone_demo --eval output/allinone_demo/eval_bundle --out demo.html

Curves come from log.jsonl, which tools/train.py writes; tables and images from what tools/eval.py wrote.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.files import atomic_write


def main(argv: Sequence[str]) -> int:
    """Writes the page and prints its path."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUTPUT_DIR", help="save_dir of a run")
    parser.add_argument("--eval", type=Path, metavar="DIR", help="what tools/eval.py wrote (default: OUTPUT_DIR/eval)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: OUTPUT_DIR/report.html)")
    arguments = parser.parse_args(argv)

    from ppmtl.studies.run_page import run_page

    text = run_page(arguments.folder, arguments.eval or arguments.folder / "eval")
    target = arguments.out or arguments.folder / "report.html"
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    cli.run(main)
