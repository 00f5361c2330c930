"""Runs the rows of the paper's tables on your config, weights and validation data; prints paper, ours, difference, cost.

    python tools/reproduce.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model --table 4 5 6
    python tools/reproduce.py -c configs/allinone_traffic.yml -o weights=... --table 2
    python tools/reproduce.py -c configs/allinone_demo.yml --against configs/baseline_demo.yml --minutes 15 --seeds 1 2 3
    python tools/reproduce.py -c configs/yolor_demo.yml --paper yolor --steps 300 --nprocs 2

Tables: 2 = the three tasks' scores, 4 = TTA of segmentation, 5 = of classification, 6 = of detection. Nothing is printed as
"ours" that this run did not measure.

--against is table 2 with both of its systems: it trains the two configs, no weights needed, on the same data for the same time
with the same seeds, and says who wins by how much. Start it again after an interruption: finished runs are read back.

With --paper yolor the tables are those of the YOLOR multi-task paper: pairing (which tasks together), augmentation (strong or
weak for captions), semantic_head (scale and stride). Every cell trains a model; what is there already is read back, an
interrupted one goes on: start the command again. Cells of tables that were never asked for are "not run".
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli

_TABLES = {"allinone": ["2", "4", "5", "6"], "yolor": ["pairing", "augmentation", "semantic_head"]}


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = cli.parser(__doc__ or "", weights=True)
    parser.add_argument("--paper", choices=list(_TABLES), default="allinone", help="whose tables (default: allinone)")
    parser.add_argument("--table", nargs="+", metavar="N", help="which tables (default: all)")
    parser.add_argument("--steps", type=cli.positive, metavar="N", help="yolor: of every model (default: the config's)")
    cli.add_nprocs(parser, "with --paper yolor or --against: train")
    cli.add_limit(parser, "only the first N images of each set; the tables say so")
    parser.add_argument(
        "--output_dir", metavar="DIR", help="default: <save_dir>/reproduce; with --limit reproduce_firstN"
    )
    both = parser.add_argument_group("table 2 with both systems")
    both.add_argument("--against", metavar="YML", help="the other system's config, e.g. configs/baseline_demo.yml")
    both.add_argument("--minutes", type=float, default=15.0, metavar="M", help="of training per run (default: 15)")
    both.add_argument(
        "--seeds", type=int, nargs="+", metavar="S", help="one run of each per seed (default: the config's)"
    )
    both.add_argument("--equal", nargs="+", choices=["minutes", "parameters"], default=["minutes", "parameters"],
                      help="as the configs are, or the second one's backbone as wide as equal parameters ask for")  # fmt: skip
    both.add_argument("--print", action="store_true", help="run nothing: print the table of what is there")
    arguments = parser.parse_args(argv)
    tables_of_paper = _TABLES[arguments.paper]
    arguments.table = arguments.table or tables_of_paper
    if wrong := [table for table in arguments.table if table not in tables_of_paper]:
        parser.error(f"--table: got {wrong[0]!r}; --paper {arguments.paper} has {', '.join(tables_of_paper)}")
    if arguments.paper == "yolor":
        return _yolor(arguments)
    settings = cli.load(arguments).settings
    name = "reproduce" if arguments.limit is None else f"reproduce_first{arguments.limit}"
    folder = Path(arguments.output_dir or Path(settings.save_dir) / name)

    from ppmtl import build

    if arguments.against:
        from ppmtl.studies.systems import compare_systems

        build.require_data(settings, training=not arguments.print, evaluation=True)
        print(f"{compare_systems(arguments, folder)}\n\nwrote table2.md to {folder}")
        return 0
    from ppmtl.challenge import reproduce

    weights = build.require_weights(settings)
    build.require_data(settings, training=False, evaluation=True)
    tasks, backend = build.open_trained(settings, {})
    sets = build.build_eval_sets(settings, tasks)
    images = "all images" if arguments.limit is None else f"the first {arguments.limit} images"
    source = f"weights {weights}, config {arguments.config}, {images} of the validation sets"
    tables: dict[str, list[reproduce.Row]] = {}
    for table in arguments.table:
        tables[table] = []
        for row in reproduce.TABLES[table]:
            tables[table].append(reproduce.run_row(row, tasks, sets, backend, arguments.limit))
            print(f"  {row.task_type}: {row.label}", file=sys.stderr)
        print(reproduce.to_markdown(table, tables[table], source), end="\n\n")
    reproduce.write(tables, source, folder)
    print(f"wrote reproduce.md and reproduce.json to {folder}")
    return 0


def _yolor(arguments: argparse.Namespace) -> int:
    """Trains the cells of the YOLOR paper's tables, prints and writes all tables."""
    run = cli.load(arguments)

    from ppmtl import build
    from ppmtl.files import atomic_write
    from ppmtl.studies import yolor_tables

    build.require_data(run.settings, training=True, evaluation=True)
    out = Path(arguments.output_dir or Path(run.settings.save_dir) / "reproduce_yolor")
    text = yolor_tables.run(run, arguments, out)
    with atomic_write(out / "reproduce.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nwritten to {out / 'reproduce.md'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
