"""docs/deployment.md: its commands have flags that exist."""

from __future__ import annotations

import re
import shlex

import pytest
import serve
import yaml
from container_image import ROOT, script

TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
PARSERS = {
    "deploy/serving/serve.py": "_parser",
    "deploy/python/infer.py": "_parser",
    "tools/export_model.py": "build_parser",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """[script, flag, ...] of every documented call of the three scripts, the ones in containers included."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    calls = [shlex.split(line, comments=True) for line in lines]
    return [words[words.index(name) :] for words in calls for name in PARSERS if name in words]


def test_all_three_scripts_are_documented():
    assert {words[0] for words in commands()} == PARSERS.keys()
    assert len(commands()) >= 15


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_documented_flags_exist(words):
    getattr(script(words[0]), PARSERS[words[0]])().parse_args(words[1:])


def test_the_compose_example_gives_the_service_flags_that_exist():
    (example,) = map(yaml.safe_load, blocks("yaml"))
    (service,) = example["services"].values()
    flags = serve._parser().parse_args(["--model_dir", "/bundle", *service["command"]])
    assert flags.api_key_file == "/run/secrets/key"
