"""Kills a saving process at every step of its work and says what can be read afterwards. Run by test_checkpoint_faults.py.

python killed_saves.py FOLDER       prints one JSON line per kill

Python announces every file operation (an audit event) just before it is done; the n-th run is killed at the n-th of them.
"""

import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from ppmtl.train import checkpoint, storage

assert "paddle" not in sys.modules, "forking with paddle's threads would not be safe, and importing it would be slow"
WATCHED = ("open", "os.", "shutil.")


def save_all(run: Path, step: int) -> None:
    """Saves as training does after a step whose evaluation was the best so far."""
    tensors = {"model": {"w": np.full(1000, step, np.float32)}}
    checkpoint.save(run / "best_model", tensors, {"progress": {"step": step}})
    folder = checkpoint.step_folder(run, step)
    checkpoint.save(
        folder, {**tensors, "optimizer": {"m": np.full(10, step, np.float32)}}, {"progress": {"step": step}}
    )
    checkpoint.mark_latest(run, folder)
    checkpoint.drop_old(run, 1)


def step_in(folder: Path) -> int:
    """Returns the step of a checkpoint whose parts all say the same."""
    step = checkpoint.read_state(folder)["progress"]["step"]
    assert (checkpoint.read_tensors(folder)["w"] == step).all()
    return int(step)


def killed_at(number: int, action) -> str | None:
    """Returns the operation before which a child doing ``action`` was killed, or None when it came to its end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal seen
            if event.startswith(WATCHED) and event != "os.fork":
                seen += 1
                if seen == number:
                    os.write(writer, f"{event} {arguments[0]}".encode())
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        action()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        operation = pipe.read()
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) == bool(operation), "the child failed by itself"
    return operation or None


def killed_again(run: Path, twice: Path) -> set[int]:
    """Returns the steps read from best_model after a second kill, at any operation of the next save."""
    found, number = set(), 0
    while True:
        number += 1
        shutil.rmtree(twice, ignore_errors=True)
        shutil.copytree(run, twice, symlinks=True)
        if killed_at(number, lambda: save_all(twice, 3)) is None:
            return found
        found.add(step_in(twice / "best_model"))


def main(work: Path) -> None:
    logging.disable()
    before, run = work / "before", work / "run"
    save_all(before, 1)
    number = 0
    while True:
        number += 1
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(before, run, symlinks=True)
        operation = killed_at(number, lambda: save_all(run, 2))
        if operation is None:
            return
        found = {"operation": operation, "best": step_in(run / "best_model")}
        found["window"] = not (run / "best_model").exists()
        found["damaged"] = [p.name for p in run.glob("[!.]*") if not p.is_symlink() and storage.problems(p)]
        if found["window"]:
            found["best_after_two"] = sorted(killed_again(run, work / "twice"))
        found["resume"] = step_in(checkpoint.find_resume(run, "auto"))
        save_all(run, 3)
        found["next"] = [step_in(run / name) for name in ("best_model", "latest", "step_0000003")]
        found["left"] = sorted(p.name for p in run.iterdir())
        found["whole"] = not any(storage.problems(p) for p in run.iterdir())
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
