"""log.jsonl: the numbers of a run, one JSON object per line, for programs and for tools/report.py. Without Paddle.

A line of training has "step", "time" (Unix seconds) and the means since the line before: "loss", "loss_<task>",
"<task>.<term>", "learning_rate", "grad_norm", ... A line of evaluation has "step", "time" and "evaluation": {"score",
"<task>.<metric>"}. What is not finite is null.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppmtl.files import atomic_write
from ppmtl.predict.report import without_nan

NAME = "log.jsonl"


class LogFile:
    """Appends lines to ``<save_dir>/log.jsonl``.

    Args:
        save_dir: the run's folder.
        first_step: steps done when the run starts. 0 starts a new file; otherwise the file is continued, without the lines
            of later steps, which a run wrote that ended after its last checkpoint.
    """

    def __init__(self, save_dir: Path, first_step: int) -> None:
        self._path = save_dir / NAME
        kept = [line for line in read(save_dir) if line["step"] <= first_step] if first_step else []
        save_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as fresh:
            fresh.write_text("".join(map(_line, kept)), encoding="utf-8")

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, "time": round(time.time(), 3), **values}))


def read(save_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, oldest first; none without a file. A last line that was cut off is left out.

    Raises:
        ValueError: if another line is damaged.
    """
    path = save_dir / NAME
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break  # the run was killed while it wrote
        try:
            found.append(json.loads(line))
            found[-1]["step"] + 0
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number}: expected a JSON object with a step, got {line[:80].rstrip()!r}; delete the line"
            ) from error
    return found


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(without_nan(values), ensure_ascii=False) + "\n"
