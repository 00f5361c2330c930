"""What people type for weights -> the checkpoint folder or file that is meant. No Paddle here."""

from __future__ import annotations

import logging
from pathlib import Path

from ppmtl.config import nearest

LOGGER = logging.getLogger("ppmtl")
STATE = "state.json"  # a checkpoint's manifest; a folder that has one is complete
MODEL = "model.safetensors"
BEST = "best_model"
DEMO = "demo"
_BUNDLE = "infer_cfg.yml"  # what every exported bundle holds


def demo_checkpoint() -> Path:
    """The folder with the demo model's own weights, which are part of this package; its images/ holds a few images."""
    return Path(__file__).resolve().parents[1] / DEMO


def locate(path: Path) -> Path:
    """``path``, a checkpoint folder or a file in one; while an interrupted save leaves it absent, the hidden complete one."""
    if path.suffix == ".safetensors":
        return locate(path.parent) / path.name
    for kind in ("new", "old"):
        hidden = path.parent / f".{path.name}.{kind}"  # not with_name: "." has none
        if not path.exists() and (hidden / STATE).is_file():
            LOGGER.warning("%s is absent because a save was interrupted; reading %s", path, hidden)
            return hidden
    return path


def find_weights(given: str | Path, key: str = "weights") -> Path:
    """The checkpoint folder or weights file that ``given`` means: itself, or a run folder's best_model.

    Args:
        given: a checkpoint folder, a .safetensors, .pdparams or .pth file, the save_dir of a run, or "demo" (unless there
            is such a path) for the weights that come with the project.
        key: the config key, for messages.

    Raises:
        ValueError: if there is no such path (naming the nearest that exists), or the folder has no weights. Of a run without
            best_model no other checkpoint is taken in its place; the message names the newest.
    """
    path = locate(Path(given).expanduser())
    if str(given) == DEMO and not path.exists():
        return demo_checkpoint()
    if path.is_file() or (path / STATE).is_file() or (path / MODEL).is_file():
        return path
    if not path.is_dir():
        demo = (
            f"; did you mean {DEMO!r}, the weights that come with the project?" if nearest(str(given), [DEMO]) else ""
        )
        raise ValueError(f"{key}: {given} does not exist{demo or _suggestion(path)}")
    best = locate(path / BEST)
    if (best / MODEL).is_file():
        return best
    there = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    if _BUNDLE in there:
        raise ValueError(
            f"{key}: {path} is an exported bundle, which is run without weights: python deploy/python/infer.py --model_dir "
            f"{path}, python tools/eval.py --bundle {path}, or ppmtl.load"
        )
    steps = [name for name in there if name.startswith("step_")]
    if steps:
        newest = path / ("latest" if "latest" in there else steps[-1])
        raise ValueError(
            f"{key}: {path} is a run without {BEST} (it was not trained with --eval, or not evaluated yet); to take its newest "
            f"checkpoint instead say so: {key}={newest}"
        )
    raise ValueError(
        f"{key}: {path} holds no {MODEL} and no {BEST}; give a run's folder, a checkpoint folder, or a .safetensors, .pdparams "
        f"or .pth file. In it are {_listed(there)}"
    )


def checkpoint_folder_of(path: Path) -> Path:
    """The folder of a checkpoint, given it or a file in it."""
    return path if path.is_dir() else path.parent


def _suggestion(path: Path) -> str:
    """What is there under nearly this name, and what is in the deepest folder of the path that exists."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    guess: Path | None = folder
    for name in path.relative_to(folder).parts:
        if guess is not None and not (guess / name).exists():
            close = nearest(name, (entry.name for entry in guess.iterdir())) if guess.is_dir() else None
            guess = guess / close if close else None
        elif guess is not None:
            guess = guess / name
    hint = f"; did you mean {guess}?" if guess else ";"
    return f"{hint} {folder} holds {_listed(sorted(e.name for e in folder.iterdir() if not e.name.startswith('.')))}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + more
