"""Proves on your own config that an interrupted run ends like an uninterrupted one: kills one with -9, resumes it, compares.

    python tools/verify_resume.py -c configs/allinone_demo.yml
    python tools/verify_resume.py -c my.yml --steps 20 --kills 5 --eval -o train.num_workers=2

Trains 2N steps in one go and, beside it, a run that is killed (kill -9, the whole process group) after its first checkpoint
and resumed with -r auto. On CPU both must end with the same bytes: weights, average, optimizer, balance, best metric, history.
On a GPU many kernels add up in changing order; differences there are shown, and the largest is what to look at.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import build, cli
from ppmtl.studies import inspection
from ppmtl.train import checkpoint

TRAIN = Path(__file__).resolve().parent / "train.py"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 = the same bytes."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument(
        "--steps", type=cli.positive, default=4, metavar="N", help="N + N steps against 2N (default: 4)"
    )
    parser.add_argument("--kills", type=cli.positive, default=1, metavar="K",
                        help="how often to kill; first after step N, then at random moments (default: 1)")  # fmt: skip
    cli.add_switch(parser, "--eval", "evaluate after N and 2N steps as well, on the config's validation sets")
    cli.add_nprocs(parser, "train")
    parser.add_argument("--work_dir", metavar="DIR", help="keep both runs here (default: a temporary folder, removed)")
    arguments = parser.parse_args(argv)
    if not hasattr(os, "killpg"):
        raise ValueError(
            "it kills a run with all its processes as a group, which Windows does not have: use Linux or macOS"
        )
    build.require_data(cli.load(arguments).settings, training=True, evaluation=arguments.eval)
    if arguments.work_dir:
        return _verify(arguments, Path(arguments.work_dir))
    with tempfile.TemporaryDirectory(prefix="verify_resume_", ignore_cleanup_errors=True) as work:
        return _verify(arguments, Path(work))


def _verify(arguments: argparse.Namespace, work: Path) -> int:
    steps, uninterrupted, killed = arguments.steps, work / "uninterrupted", work / "killed"
    print(f"1. {2 * steps} steps in one go ...", flush=True)
    seconds = finish(arguments, uninterrupted)
    print(f"   {seconds:.0f} s\n2. the same, killed with -9 {arguments.kills} time(s) ...", flush=True)
    random.seed(arguments.seed)
    for number in range(arguments.kills):
        # The first kill waits for the checkpoint of step N: resuming from nothing would prove nothing.
        first = killed / f"step_{steps:07d}" if number == 0 else None
        print(f"   {kill(arguments, killed, wait_for=first, within=seconds)}", flush=True)
    print("3. resumed to the end ...", flush=True)
    print(f"   {finish(arguments, killed):.0f} s", flush=True)
    if lines := differences(uninterrupted, killed, 2 * steps):
        print("DIFFERENT:", *lines[:50], sep="\n  ")
        return 1
    files = checkpoint.read_state(uninterrupted / f"step_{2 * steps:07d}")["contents"]
    counts = [f"{entry['tensors']} tensors of {name.removesuffix('.safetensors')}" for name, entry in files.items()]
    print(f"THE SAME BYTES: {', '.join(sorted(counts))}, progress (best metric, history)")
    return 0


def start(arguments: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Starts (or resumes, where a checkpoint is) tools/train.py in a process group of its own."""
    steps = arguments.steps
    own = [f"save_dir={folder}", "train.epochs=1", f"train.steps_per_epoch={2 * steps}", "train.log_every=1",
           f"train.save_every={steps}", f"train.eval_every={steps}", "train.early_stop=null"]  # fmt: skip
    overrides = [item for group in arguments.overrides for item in group] + own
    command = [sys.executable, str(TRAIN), "-c", arguments.config, "-o", *overrides, f"--nprocs={arguments.nprocs}"]
    given = {name: getattr(arguments, name) for name in ("seed", "device")}
    command += [f"--{name}={value}" for name, value in given.items() if value is not None]
    command += ["--tasks", ",".join(arguments.tasks)] if arguments.tasks else []
    command += ["--eval"] if arguments.eval else []
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.recover(folder)  # the first checkpoint may be complete and still hidden
    command += ["-r", "auto"] if any(folder.glob("step_*")) else []
    with (folder / "console.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(arguments: argparse.Namespace, folder: Path) -> float:
    """Runs to the end and returns the seconds."""
    started = time.perf_counter()
    check(start(arguments, folder).wait(), folder)
    return time.perf_counter() - started


def kill(arguments: argparse.Namespace, folder: Path, *, wait_for: Path | None, within: float) -> str:
    """Starts, kills with -9 once ``wait_for`` exists, a random part of ``within`` seconds later, and says when."""
    process, started = start(arguments, folder), time.perf_counter()
    while wait_for is not None and not wait_for.exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.uniform(0, within / 20 if wait_for else within))
    if process.poll() is not None:
        check(process.returncode, folder)
        if wait_for is not None:
            raise ValueError("the run was over before it could be killed: give more steps, e.g. --steps 20")
        return "over before the kill: nothing left to interrupt"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    steps = sorted(path.name for path in folder.glob("step_*"))
    return f"killed after {time.perf_counter() - started:.1f} s; on disk: {', '.join(steps) or 'no checkpoint'}"


def check(exit_code: int, folder: Path) -> None:
    """Raises ValueError with the end of the output if the training failed."""
    if exit_code != 0:
        tail = (folder / "console.log").read_text(errors="replace").splitlines()[-12:]
        raise ValueError("the training run failed:\n" + "\n".join(tail))


def differences(one: Path, other: Path, step: int) -> list[str]:
    """A line for everything in which two runs' last checkpoints differ; files are the same if their digests are."""
    lines = []
    for name in (f"step_{step:07d}", "best_model"):
        states = [checkpoint.read_state(run / name) for run in (one, other)]
        for key in ("progress", "precision", "classes"):
            if states[0].get(key) != states[1].get(key):
                lines.append(f"{name}/state.json, {key}: {states[0].get(key)} against {states[1].get(key)}")
        if states[0].get("digests") != states[1].get("digests") and all(states):
            found = inspection.differences(one / name, other / name)
            lines += inspection.text({"path": f"{name}: the bytes differ", "comparison": found})
    return lines


if __name__ == "__main__":
    cli.run(main)
