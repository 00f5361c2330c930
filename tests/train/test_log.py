"""The log of a run: a terminal with progress bars, and log.jsonl, right after resuming too."""

from __future__ import annotations

import io
import json
import logging
import math
import sys

import pytest
from tqdm import tqdm

from ppmtl.train.log import TerminalHandler
from ppmtl.train.log_file import LogFile, read


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after ``text``."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_log_line_has_a_line_of_its_own_while_progress_bars_are_shown(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    logger = logging.Logger("own")
    logger.addHandler(TerminalHandler(sys.stdout))
    with tqdm(total=9, desc="steps", leave=False, ncols=60, mininterval=0) as bar:
        bar.update(3)
        logger.info("the loss is 1")
        bar.update(3)
        assert screen(terminal.getvalue())[0] == "the loss is 1"
        assert screen(terminal.getvalue())[1].startswith("steps:  67%")


def test_the_file_holds_one_json_object_per_line_and_null_for_what_is_not_finite(tmp_path):
    log = LogFile(tmp_path, 0)
    log.add(10, {"loss": 1.5})
    log.add(10, {"evaluation": {"score": math.nan}})
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.pop("time") > 0 for line in lines] == [True, True]
    assert lines == [{"step": 10, "loss": 1.5}, {"step": 10, "evaluation": {"score": None}}]


def test_a_resumed_run_goes_on_from_its_checkpoint_and_a_new_one_starts_a_new_file(tmp_path):
    log = LogFile(tmp_path, 0)
    for step in (10, 20, 30):
        log.add(step, {"loss": step})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # killed while it wrote
    LogFile(tmp_path, 20).add(25, {"loss": 0})
    assert [line["step"] for line in read(tmp_path)] == [10, 20, 25]
    LogFile(tmp_path, 0)
    assert read(tmp_path) == []


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: .*nonsense"):
        LogFile(tmp_path, 2)
    LogFile(tmp_path, 0)  # a new run does not mind
    assert read(tmp_path) == []
