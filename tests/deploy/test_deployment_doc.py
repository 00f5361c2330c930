"""docs/deployment.md: its commands have flags that exist, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import serve
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "deployment.md"
TEXT = DOC.read_text(encoding="utf-8")
PARSERS = {
    "deploy/serving/serve.py": "_parser",
    "deploy/python/infer.py": "_parser",
    "tools/export_model.py": "build_parser",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Returns [script, flag, ...] of every documented call of the three scripts, the ones in containers included."""
    found = []
    for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        found += [words[words.index(script) :] for script in PARSERS if script in words]
    return found


COMMANDS = commands()


def parser(script: str):
    spec = importlib.util.spec_from_file_location("documented", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, PARSERS[script])()


def test_all_three_scripts_are_documented():
    assert {words[0] for words in COMMANDS} == PARSERS.keys()
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_documented_flags_exist(words):
    parser(words[0]).parse_args(words[1:])


def test_the_compose_example_gives_the_service_flags_that_exist():
    (example,) = map(yaml.safe_load, blocks("yaml"))
    (service,) = example["services"].values()
    assert (
        serve._parser().parse_args(["--model_dir", "/bundle", *service["command"]]).api_key_file == "/run/secrets/key"
    )


def test_links_lead_to_files_and_headings():
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", TEXT)
    assert len(links) >= 2
    for file, heading in links:
        target = (DOC.parent / file).read_text(encoding="utf-8")
        titles = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", target, re.MULTILINE)}
        assert not heading or heading in titles, heading
