"""Shows what the network really sees: contact sheets of augmented training batches with their labels.

    python tools/preview.py -c configs/allinone_demo.yml
    python tools/preview.py -c configs/allinone_demo.yml --step 1234      (the batches that an error message names)
    python tools/preview.py -c configs/allinone_demo.yml --assign --tta

The batches are those that training gets at that step with one process. --assign shows which anchors of which level answer for
which object, --tta the views of test-time augmentation.
"""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli


def main(argv: Sequence[str]) -> int:
    """Writes the sheets and prints their paths."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the PNG files (default: <save_dir>/preview)")
    parser.add_argument("--step", type=cli.positive, default=1, metavar="N",
                        help="the first step to show, as log lines count (default: 1)")  # fmt: skip
    parser.add_argument("--batches", type=cli.positive, default=1, metavar="N",
                        help="so many batches of every source, or images of every evaluation set (default: 1)")  # fmt: skip
    cli.add_switch(parser, "--assign", "also the assigned anchors, level by level")
    cli.add_tta_flags(parser)
    arguments = parser.parse_args(argv)
    views = cli.tta_overrides(arguments)
    run = cli.load(arguments)

    from ppmtl import build
    from ppmtl.studies.preview import training_sheets, view_sheets, write_sheet

    build.require_data(run.settings, training=True, evaluation=arguments.tta)
    tasks = build.build_tasks(run.settings)
    heads = {}
    if arguments.assign:
        model = build.build_model(run.settings, tasks)
        heads = {name: model.head(name) for name in tasks}
    for task in tasks.values():
        task.change_tta(views)
    sets = build.build_eval_sets(run.settings, tasks) if arguments.tta else {}
    sheets = training_sheets(run.settings, tasks, step=arguments.step, batches=arguments.batches, heads=heads)
    folder = arguments.out or Path(run.settings.save_dir) / "preview"
    for sheet in chain(sheets, view_sheets(sets, tasks, arguments.batches)):
        print(write_sheet(sheet, folder))
    return 0


if __name__ == "__main__":
    cli.run(main)
