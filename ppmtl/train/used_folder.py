"""A save_dir holds one run: a second one is refused, or replaces it where that is asked for. No Paddle here."""

from __future__ import annotations

from pathlib import Path

from ppmtl.config import ConfigError
from ppmtl.files import remove_folder
from ppmtl.train.checkpoint import HIDDEN
from ppmtl.weights.location import STATE

# What tools/train.py, tools/eval.py and tools/report.py write into a save_dir beside checkpoints, by pattern
_OF_A_RUN = ("train.log", "log.jsonl", "config.yml", "environment.json", "diagnosis.*", "eval", "eval_*", "report.html")


def require_unused(save_dir: Path, resume: str | None = None) -> None:
    """Raises ConfigError if ``save_dir`` holds checkpoints that a new run would push out, with all ways to go on.

    Args:
        save_dir: of the run that is to start.
        resume: what it continues from; a run may go on in its own folder. None = it is a new one.
    """
    goes_on = resume == "auto" or (resume is not None and Path(resume).resolve().parent == save_dir.resolve())
    # A hidden one without its manifest is what a kill left of a save: nothing is lost with it
    held = [path.name for path in _checkpoints(save_dir) if path.name[0] != "." or (path / STATE).is_file()]
    if goes_on or not held:
        return
    more = f" and {len(held) - 3} more" if len(held) > 3 else ""
    number = next(n for n in range(2, len(held) + 1000) if not save_dir.with_name(f"{save_dir.name}_{n}").exists())
    raise ConfigError(
        [
            f"save_dir: {save_dir} holds a run already ({', '.join(held[:3])}{more}), which a new one would push out. "
            f"To continue it: -r. To keep it: -o save_dir={save_dir}_{number}. To throw it away: --overwrite"
        ]
    )


def clear(save_dir: Path) -> None:
    """Removes the run in ``save_dir``: checkpoints, logs, evaluations. What no tool of this project wrote stays."""
    latest = save_dir / "latest"
    if latest.is_symlink():
        latest.unlink()
    for path in _checkpoints(save_dir):
        remove_folder(path)
    for path in [path for pattern in _OF_A_RUN for path in save_dir.glob(pattern)]:
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink()


def _checkpoints(save_dir: Path) -> list[Path]:
    """best_model and the step folders, also those that an interrupted save left hidden."""
    paths = [*save_dir.glob("best_model"), *save_dir.glob("step_*"), *save_dir.glob(".*")]
    return sorted(path for path in paths if path.is_dir() and (path.name[0] != "." or HIDDEN.fullmatch(path.name)))
