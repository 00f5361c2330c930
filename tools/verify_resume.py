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
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppmtl import cli

TRAIN = Path(__file__).resolve().parent / "train.py"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 = the same bytes."""
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="N + N steps against 2N (default: 4)")
    parser.add_argument("--kills", type=int, default=1, metavar="K",
                        help="how often to kill; first after step N, then at random moments (default: 1)")  # fmt: skip
    cli.add_switch(parser, "--eval", "evaluate after N and 2N steps as well, on the config's validation sets")
    cli.add_nprocs(parser, "train")
    parser.add_argument("--work_dir", metavar="DIR", help="keep both runs here (default: a temporary folder, removed)")
    arguments = parser.parse_args(argv)
    settings, _ = cli.load_settings(arguments)
    cli.require_data(settings, training=True, evaluation=arguments.eval)
    if arguments.steps < 1 or arguments.kills < 1:
        raise ValueError(f"--steps and --kills must be at least 1, got {arguments.steps} and {arguments.kills}")
    work = Path(arguments.work_dir or tempfile.mkdtemp(prefix="verify_resume_"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        return _verify(arguments, work)
    finally:
        if arguments.work_dir is None:
            shutil.rmtree(work, ignore_errors=True)


def _verify(arguments: argparse.Namespace, work: Path) -> int:
    steps = arguments.steps
    whole, broken = Run(arguments, work / "uninterrupted"), Run(arguments, work / "killed")
    print(f"1. {2 * steps} steps in one go ...", flush=True)
    seconds = whole.finish()
    print(f"   {seconds:.0f} s\n2. the same, killed with -9 {arguments.kills} time(s) ...", flush=True)
    random.seed(arguments.seed)
    for number in range(arguments.kills):
        # The first kill waits for the checkpoint of step N: resuming from nothing would prove nothing.
        told = broken.kill(wait_for=f"step_{steps:07d}" if number == 0 else None, within=seconds)
        print(f"   {told}", flush=True)
    print("3. resumed to the end ...", flush=True)
    print(f"   {broken.finish():.0f} s", flush=True)
    differences = _differences(whole.folder, broken.folder, 2 * steps)
    if differences:
        print(f"DIFFERENT: {len(differences)} thing(s)")
        print("\n".join(f"  {line}" for line in differences[:20]))
        return 1
    print("THE SAME BYTES: " + _summary(whole.folder, 2 * steps))
    return 0


@dataclass
class Run:
    """One training run of 2N steps in a folder of its own.

    Attributes:
        arguments: the tool's.
        folder: its save_dir.
    """

    arguments: argparse.Namespace
    folder: Path

    def start(self) -> subprocess.Popen[bytes]:
        """Starts (or resumes, where a checkpoint is) tools/train.py in a process group of its own."""
        given = self.arguments
        steps = given.steps
        own = [f"save_dir={self.folder}", "train.epochs=1", f"train.steps_per_epoch={2 * steps}", "train.log_every=1",
               f"train.save_every={steps}", f"train.eval_every={steps}", "train.early_stop=null"]  # fmt: skip
        overrides = [item for group in given.overrides for item in group] + own
        command = [sys.executable, str(TRAIN), "-c", given.config, "-o", *overrides]
        command += [
            f"--{name}={getattr(given, name)}" for name in ("seed", "device") if getattr(given, name) is not None
        ]
        command += ["--tasks", ",".join(given.tasks)] if given.tasks else []
        command += ["--nprocs", str(given.nprocs)] if given.nprocs > 1 else []
        command += ["--eval"] if given.eval else []
        command += ["-r", "auto"] if any(self.folder.glob("step_*")) else []
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "console.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def finish(self) -> float:
        """Runs to the end and returns the seconds.

        Raises:
            ValueError: if the training fails; the message has the end of its output.
        """
        started = time.perf_counter()
        process = self.start()
        if process.wait() != 0:
            raise ValueError(f"the training run failed:\n{self._tail()}")
        return time.perf_counter() - started

    def kill(self, wait_for: str | None, within: float) -> str:
        """Starts, kills with -9 and returns a line about when.

        Args:
            wait_for: checkpoint folder that must be there first; None = any moment.
            within: how long a whole run takes, in seconds; the moment is drawn from a part of it.

        Raises:
            ValueError: if the run ends or fails before it can be killed.
        """
        process = self.start()
        started = time.perf_counter()
        while wait_for is not None and not (self.folder / wait_for).exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, within / 20 if wait_for else within))
        if process.poll() is not None:
            if process.returncode != 0:
                raise ValueError(f"the training run failed before it was killed:\n{self._tail()}")
            if wait_for is not None:
                raise ValueError("the run was over before it could be killed: give more steps, e.g. --steps 20")
            return "over before the kill: nothing left to interrupt"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        steps = sorted(path.name for path in self.folder.glob("step_*"))
        return f"killed after {time.perf_counter() - started:.1f} s; on disk: {', '.join(steps) or 'no checkpoint'}"

    def _tail(self) -> str:
        return "\n".join((self.folder / "console.log").read_text(errors="replace").splitlines()[-12:])


def _differences(one: Path, other: Path, step: int) -> list[str]:
    """Returns one line for everything in which two runs' last checkpoints differ."""
    import numpy as np

    from ppmtl.train import checkpoint

    lines = []
    for name in (f"step_{step:07d}", "best_model"):
        a, b = one / name, other / name
        if a.exists() != b.exists():
            lines.append(f"{name}: only in {one.name if a.exists() else other.name}")
        if not (a.exists() and b.exists()):
            continue
        states = [checkpoint.read_state(folder) for folder in (a, b)]
        for key in ("progress", "precision", "classes"):
            if states[0].get(key) != states[1].get(key):
                lines.append(f"{name}/state.json, {key}: {states[0].get(key)} against {states[1].get(key)}")
        stems = sorted({path.stem for folder in (a, b) for path in folder.glob("*.safetensors")})
        for stem in stems:
            first, second = checkpoint.read_tensors(a, stem), checkpoint.read_tensors(b, stem)
            lines += [f"{name}/{stem}: {tensor} only in one" for tensor in sorted(first.keys() ^ second.keys())]
            for tensor in sorted(first.keys() & second.keys()):
                x, y = first[tensor], second[tensor]
                if x.dtype != y.dtype or x.shape != y.shape:
                    lines.append(f"{name}/{stem}: {tensor} {x.dtype}{x.shape} against {y.dtype}{y.shape}")
                elif x.tobytes() != y.tobytes():
                    gap = np.abs(x.astype(np.float64) - y.astype(np.float64)).max()
                    lines.append(
                        f"{name}/{stem}: {tensor}, {int((x != y).sum())} of {x.size} values, by up to {gap:.3g}"
                    )
    return lines


def _summary(run: Path, step: int) -> str:
    from safetensors import safe_open

    counts = []
    for file in sorted((run / f"step_{step:07d}").glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            counts.append(f"{len(list(tensors.keys()))} tensors of {file.stem}")
    return ", ".join([*counts, "progress (best metric, history)"])


if __name__ == "__main__":
    cli.run(main)
