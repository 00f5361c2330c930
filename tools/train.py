"""Trains one model for several tasks.

python tools/train.py -c configs/allinone_traffic.yml --eval
python tools/train.py -c configs/allinone_demo.yml --eval --use_vdl -o train.epochs=5
python tools/train.py -c configs/allinone_traffic.yml -r auto          (continue after an interruption)
python tools/train.py -c configs/allinone_traffic.yml --fast_dev_run   (two steps of everything: is all in order?)
python -m paddle.distributed.launch --gpus 0,1,2,3 tools/train.py -c configs/allinone_traffic.yml --eval
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli

if TYPE_CHECKING:
    from ppmtl.build import Run
    from ppmtl.start import TrainOptions


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0, or 128 + the signal's number when a signal ended the run (as shells have it)."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("-r", "--resume", nargs="?", const="auto", metavar="FOLDER|auto",
                        help="continue from a checkpoint; 'auto' or no value: the newest intact one in save_dir")  # fmt: skip
    cli.add_switch(parser, "--eval", "evaluate during training (train.eval_every) and keep best_model")
    cli.add_switch(parser, "--use_vdl", "write VisualDL scalars and sample images")
    parser.add_argument("--vdl_log_dir", metavar="DIR", help="default: <save_dir>/vdl")
    cli.add_nprocs(parser, "train")
    cli.add_switch(parser, "--amp", "mixed precision on GPU (-o train.amp.level=O1, bfloat16, unless the config says)")
    parser.add_argument("--diagnose", type=cli.positive, metavar="N",
                        help="every N steps measure each task's gradient in the backbone: norms and cosines per stage, to "
                        "<save_dir>/diagnosis.csv and .png, and a warning when a task starves")  # fmt: skip
    cli.add_switch(parser, "--fast_dev_run", "two steps of everything (train, evaluate, save, load) in a folder of "
                   "its own, to see whether config and data are in order")  # fmt: skip
    parser.add_argument("--overfit", type=cli.positive, metavar="N",
                        help="train on the first N batches of every source again and again; --eval then measures their "
                        "images: a model that cannot learn them by heart will not learn more")  # fmt: skip
    cli.add_switch(parser, "--overwrite", "throw away the run that save_dir holds (checkpoints, logs, evaluations); "
                   "without it, or -r, a used save_dir is refused")  # fmt: skip
    cli.add_switch(parser, "--skip_check", "start without looking at the data first (tools/doctor.py looks at more)")
    arguments = parser.parse_args(argv)
    run = cli.load(arguments, *(["train.amp.level=O1"] if arguments.amp else []))

    from ppmtl.start import TrainOptions, prepare_training

    run, evaluate = prepare_training(run, evaluate=arguments.eval, resume=arguments.resume,
                                     fast_dev_run=arguments.fast_dev_run, overwrite=arguments.overwrite)  # fmt: skip
    vdl = Path(arguments.vdl_log_dir or Path(run.settings.save_dir) / "vdl") if arguments.use_vdl else None
    options = TrainOptions(evaluate, arguments.resume, vdl, arguments.diagnose, arguments.overfit,
                           arguments.fast_dev_run, arguments.skip_check, arguments.overwrite)  # fmt: skip
    cli.launch(train, arguments.nprocs, run, options)
    return 0


def train(run: "Run", options: "TrainOptions") -> None:
    """Trains in this process; exits with 128 + the signal's number when a signal ended the run."""
    from ppmtl.start import start_training
    from ppmtl.train.log import LOGGER

    stopped = start_training(run, options)
    if stopped in signal.Signals.__members__:
        again = cli.command_line().replace(" --overwrite", "")
        LOGGER.info("continue with: %s -r auto", again)
        sys.exit(128 + signal.Signals[stopped])


if __name__ == "__main__":
    cli.run(main)
