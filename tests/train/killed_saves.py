"""Kills a saving process before each of its file operations and checks what can be read. Run by test_checkpoint_faults.py.

python killed_saves.py FOLDER       prints the number of kills

Python announces every file operation (an audit event) just before it is done; the n-th run is killed at the n-th of them.
"""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from ppmtl.train import checkpoint
from ppmtl.train.checkpoint_folder import problems

assert "paddle" not in sys.modules, "forking with paddle's threads would not be safe, and importing it would be slow"


def save_all(run: Path, step: int) -> None:
    """Saves as training does after a step whose evaluation was the best so far."""
    tensors = {"model": {"w": np.full(1000, step, np.float32)}}
    folder, state = checkpoint.step_folder(run, step), {"progress": {"step": step}}
    checkpoint.save(run / "best_model", tensors, state)
    checkpoint.save(folder, {**tensors, "optimizer": {"m": np.full(10, step, np.float32)}}, state)
    checkpoint.mark_latest(run, folder)
    checkpoint.drop_old(run, 1)


def step_in(folder: Path) -> int:
    """Returns the step of a checkpoint whose parts all say the same."""
    step = checkpoint.read_state(folder)["progress"]["step"]
    assert (checkpoint.read_tensors(folder)["w"] == step).all()
    return int(step)


def damaged(run: Path) -> list[str]:
    """Returns the damaged ones of the folders that have a checkpoint's name."""
    return [path.name for path in run.glob("[!.]*") if not path.is_symlink() and problems(path)]


def killed_at(number: int, before: Path, run: Path, step: int) -> bool:
    """Saves in a copy of ``before``; returns whether it was killed at its ``number``-th file operation, not over before."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(before, run, symlinks=True)
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, _arguments: tuple) -> None:
            nonlocal seen
            seen += event.startswith(("open", "os.", "shutil."))
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        save_all(run, step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


def main(work: Path) -> None:
    logging.disable()
    before, run = work / "before", work / "run"
    save_all(before, 1)
    number, best, windows = 1, 1, 0
    while killed_at(number, before, run, 2):
        assert step_in(run / "best_model") in (best, 2), "a later kill never finds an older one"
        best = step_in(run / "best_model")
        assert damaged(run) == [], "what is half written or half deleted never has a checkpoint's name"
        if not (run / "best_model").exists():  # renamed away, the new one not yet in its place
            windows += 1
            again = 1
            while killed_at(again, run, work / "twice", 3):
                assert step_in(work / "twice" / "best_model") in (2, 3)
                again += 1
        assert step_in(checkpoint.find_resume(run, "auto")) in (1, 2)
        assert damaged(run) == [], "nor is it given one later"
        save_all(run, 3)
        assert [step_in(run / name) for name in ("best_model", "latest", "step_0000003")] == [3, 3, 3]
        assert sorted(path.name for path in run.iterdir()) == ["best_model", "latest", "step_0000003"]
        number += 1
    assert (best, windows) == (2, 1)
    print(number - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
