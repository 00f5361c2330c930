"""Is one model for all tasks better than one per task? Trains both from one config at equal steps and prints the table.

    python tools/compare_tasks.py -c configs/allinone_demo.yml --steps 600
    python tools/compare_tasks.py -c configs/allinone_demo.yml --steps 600 --seeds 1 2 3 --nprocs 2

Every run takes the same number of optimizer steps with the same batches per task; the last weights are evaluated, not the best,
so that no run profits from being evaluated more often. Runs that are finished are not repeated, and an interrupted one goes on
where it was: start the command again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli
from ppmtl.config import ConfigError


def main(argv: Sequence[str]) -> int:
    """Trains, evaluates, prints the table and writes it to comparison.md."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument(
        "--steps", type=cli.positive, metavar="N", help="optimizer steps of every run (default: the config's)"
    )
    parser.add_argument(
        "--seeds", type=cli.count, nargs="+", metavar="S", help="one comparison per seed (default: the config's)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: <save_dir>/compare_tasks")
    cli.add_nprocs(parser, "train")
    cli.add_limit(parser, "evaluate the first N images of each set only")
    arguments = parser.parse_args(argv)
    run = cli.load(arguments)
    settings = run.settings
    if len(settings.tasks) < 2:
        raise ConfigError([f"--tasks: a comparison needs at least two tasks, got {', '.join(settings.tasks)}"])
    measured = {task for of_set in settings.eval.tasks().values() for task in of_set}
    missing = [name for name in settings.tasks if name not in measured]
    if missing:
        raise ConfigError([f"eval.datasets.{name}: missing, and needed to compare '{name}'" for name in missing])

    from ppmtl.build import require_data
    from ppmtl.studies.compare import compare

    require_data(settings, training=True, evaluation=True)
    out = arguments.out or Path(settings.save_dir) / "compare_tasks"
    text = compare(run, arguments, out)
    (out / "comparison.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nwritten to {out / 'comparison.md'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
