"""tools/config.py: each command prints what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from ppmtl.studies.config_reference import all_parts, describe_keys, page

ROOT = Path(__file__).parents[2]
DEMO = "configs/allinone_demo.yml"


def run(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "tools/config.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code in (0, 1) else done.stderr


def test_show_prints_yaml_with_origins() -> None:
    text = run("show", "-c", DEMO, "-o", "train.epochs=3", "--tasks", "seg,det")
    data = yaml.safe_load(text)
    assert data["train"]["epochs"] == 3
    assert list(data["tasks"]) == ["seg", "det"]
    origins = {line.split(":")[0].strip(): line.partition("# ")[2] for line in text.splitlines()}
    assert origins["epochs"] == "-o train.epochs=3"
    assert re.fullmatch(rf"{re.escape(DEMO)}:\d+", origins["steps_per_epoch"])
    assert origins["accumulate"] == "default"


def test_diff_ends_with_1_where_configs_differ_and_0_where_not() -> None:
    text = run("diff", DEMO, "configs/allinone_traffic.yml", code=1)
    assert re.search(r"^train\.epochs: \d+ \[configs/allinone_demo\.yml:\d+\] -> 100", text, re.MULTILINE)
    assert run("diff", DEMO, DEMO) == "no difference\n"


def test_keys_and_parts_and_schema_print() -> None:
    assert run("keys", "train.epochs").startswith("train.epochs: a whole number >= 1; default 100; unit: epochs\n    ")
    assert "did you mean train.epochs" in run("keys", "epochs", code=2)
    assert "  upernet  " in run("parts", "heads")
    assert "did you mean 'heads'?" in run("parts", "head", code=2)
    assert json.loads(run("schema"))["properties"]["train"]


def test_the_reference_page_is_current() -> None:
    assert (ROOT / "docs/config_keys.md").read_text(encoding="utf-8") == page(), (
        "write it again: python tools/config.py keys --write"
    )


def test_parts_of_all_kinds_are_listed_with_what_they_are() -> None:
    found = all_parts()
    assert list(found) == [
        "tasks",
        "backbones",
        "heads",
        "necks",
        "readers",
        "transforms",
        "balancing methods",
        "metrics",
    ]
    assert [name for parts in found.values() for name, text in parts.items() if not text] == []
    assert min(map(len, found.values())) >= 1
    assert {"random_scale", "resize"} <= set(found["transforms"])


def test_all_keys_are_described_without_a_prefix() -> None:
    assert len(describe_keys("").splitlines()) > 300
