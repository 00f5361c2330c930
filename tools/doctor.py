"""Looks at the data of a run before it starts: files, annotations, labels, classes, duplicates, leakage, sizes of objects.

python tools/doctor.py -c configs/allinone_demo.yml
python tools/doctor.py -c configs/allinone_custom.yml --html report.html --json report.json -o data_root=/path/to/your/data

The exit code is 0 if training can start and 1 if it should not. What was looked at is remembered in $PPMTL_CACHE or
~/.cache/ppmtl, so that a second run takes seconds.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0, or 1 if there are errors."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write one self-contained page with tables and examples"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write findings and tables as JSON")
    cli.add_switch(parser, "--headers", "look at the headers of images only, do not decode them")
    parser.add_argument("--workers", type=cli.count, metavar="N", help="processes (default: one per core; 0: none)")
    parser.add_argument("--examples", type=cli.positive, default=3, metavar="N", help="shown per finding (default: 3)")
    arguments = parser.parse_args(argv)
    run = cli.load(arguments)

    from ppmtl.doctor.examine import examine_run
    from ppmtl.doctor.page import page

    report = examine_run(run.settings, decode=not arguments.headers, workers=arguments.workers)
    print(report.text(arguments.examples))
    if arguments.html:
        arguments.html.write_text(page(report, arguments.config), encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
    return int(report.count("error") > 0)


if __name__ == "__main__":
    cli.run(main)
