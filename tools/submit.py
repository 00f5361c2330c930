"""Writes the challenge's submission file, checks one, and scores it where the ground truth is known.

python tools/submit.py -c configs/allinone_demo.yml -o weights=output/allinone_demo/best_model --out pred_results.json
python tools/submit.py -c ... -o weights=... --tta --out pred_results.json    (interrupted? the same command goes on)
python tools/submit.py -c ... -o weights=... --nprocs 2                      (2 CPU processes, the same bytes)
python tools/submit.py -c my.yml -o weights=...      (other data: the images of eval.datasets in the challenge's format)
python tools/submit.py check pred_results.json [--gt demo_data | -c configs/allinone_demo.yml] [--show N]
"""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli

if TYPE_CHECKING:
    from ppmtl.build import Run, Tasks


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    if argv[:1] == ["check"]:
        from ppmtl.challenge.report import check_command

        return check_command(argv[1:])
    parser = cli.parser(__doc__ or "", weights=True)
    cli.add_tta_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("pred_results.json"), help="default: pred_results.json")
    parser.add_argument("--form", choices=["list", "dict"], default="list",
                        help="list = what the official scorer reads (default); dict = as in the README")  # fmt: skip
    parser.add_argument("--max_boxes", type=cli.positive, default=100, metavar="N",
                        help="per image, the best by score (default: 100)")  # fmt: skip
    cli.add_switch(parser, "--restart", "throw away what an interrupted run left instead of going on from it")
    cli.add_nprocs(parser, "predict")
    arguments = parser.parse_args(argv)
    run = cli.load(arguments)

    from ppmtl.build import require_weights

    require_weights(run.settings)
    cli.launch(predict, arguments.nprocs, run, arguments)
    return 0


def predict(run: "Run", arguments: argparse.Namespace) -> None:
    """Predicts in this process; the only one, or one of several that the launcher or --nprocs started."""
    from ppmtl import build
    from ppmtl.challenge.expected import TEST_FOLDER
    from ppmtl.challenge.predict import evaluation_images, write_submission
    from ppmtl.train import distributed
    from ppmtl.train.checkpoint import read_state

    settings = run.settings
    tasks, backend = build.open_trained(settings, cli.tta_overrides(arguments))
    digests = read_state(build.require_weights(settings)).get("digests", settings.weights)
    processes = distributed.processes()
    images = None
    if not (test := Path(settings.data_root) / TEST_FOLDER).is_dir():
        build.require_data(settings, training=False, evaluation=True)
        images = evaluation_images(tasks, build.build_eval_sets(settings, tasks))
    if processes.rank == 0:
        _say(test, tasks, images)
    counts = write_submission(
        arguments.out, Path(settings.data_root), tasks, backend, weights=digests, images=images, augment=arguments.tta,
        form=arguments.form, max_boxes=arguments.max_boxes, resume=not arguments.restart, processes=processes,
    )  # fmt: skip
    if processes.rank == 0:
        print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 2**20:.1f} MiB); predicted now: {counts}")
        truth = f"-c {arguments.config}" if arguments.config.endswith(".yml") else f"--gt {settings.data_root}"
        print(f"check it: python tools/submit.py check {arguments.out} {truth}")


def _say(test: Path, tasks: "Tasks", images: Mapping[str, Collection[object]] | None) -> None:
    """Which images the file is about where they are not the challenge's, and which tasks are not in it."""
    if images is not None:
        counts = ", ".join(f"{name} {len(of_task)}" for name, of_task in images.items())
        print(f"{test} is not there: the submission is about the images of eval.datasets ({counts})")
    for name, task in tasks.items():
        if task.section is None:
            print(f"{name}: left out, the challenge does not ask for {task.task_type}")


if __name__ == "__main__":
    cli.run(main)
