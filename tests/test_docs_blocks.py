"""Every code block of the pages: commands have the flags and configs that they name, Python runs as pasted, YAML is a config.

A block that cannot be run has ``<!-- not run: reason -->`` on the line before it. The commands, keys and flags in the text are
looked at too.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
import signal
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import PAGES, ROOT, RUN, Block, blocks, spans, without_blocks

from ppmtl.config import check, load_config
from ppmtl.config.keys import keys_of
from ppmtl.config.settings import Settings

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
STAND_IN = "configs/allinone_demo.yml"  # for CONFIG, my.yml and the like: the config whose tasks the examples name
SCRIPT = re.compile(r"(tools|deploy)/[\w/]+\.py")
OTHERS = {"curl", "docker", "printf", "cd", "visualdl"}  # programs that are not ours
LAUNCHERS = {"paddle.distributed.launch", "pytest"}
# Flags of Paddle's launcher, docker, pip and VisualDL, which the text names beside ours
FOREIGN_FLAGS = {"--backend", "--init", "--tmpfs", "--user", "--shm-size", "--no-deps", "--logdir", "--language"}
TRANSLATIONS = {"README_cn.md": "README.md"} | {
    f"docs/zh/{name}.md": f"docs/{name}.md" for name in ("data", "deployment", "faq")
}
ELSEWHERE = {"docs/api.md"}  # its blocks need a model and follow each other: tests/test_docs_api.py runs them
KEY = re.compile(r"(train|optimizer|tasks|sources|model|eval|infer)(\.[\w<>]+)+(?=$|:)")
FILE = re.compile(r"\.(py|json|jsonl|log|yml|safetensors|npz|onnx|pd\w+)$")


class Parsed(Exception):
    """A tool's parser has done its work; carries the parser and what it found."""

    def __init__(self, parser: argparse.ArgumentParser, found: argparse.Namespace | None) -> None:
        self.parser, self.found = parser, found


@cache
def script(path: str) -> Any:
    """A tool as a module. Its folder is on the path, as when it is called."""
    sys.path.insert(0, str((ROOT / path).parent))
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def stopped(path: str, arguments: list[str], *, parse: bool) -> Parsed:
    """What a tool's parser says of ``arguments``; nothing of the tool runs. ValueError if it refuses them."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise Parsed(self, original(self, args, namespace) if parse else None)

    def error(_, message):
        raise ValueError(f"{path}: {message}")

    handler = signal.getsignal(signal.SIGTERM)  # the service sets its own before it reads its flags
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(argparse.ArgumentParser, "error", error)
        try:
            script(path).main(arguments)
        except Parsed as parsed:
            return parsed
        finally:
            signal.signal(signal.SIGTERM, handler)
    raise AssertionError(f"{path} never parsed its flags")


def commands(text: str) -> list[list[str]]:
    """The words of every command in a piece of shell: comments and redirections dropped, pipes taken apart."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found.append([])
        for word in lexer:
            if word in ("|", "&&", ";"):
                found.append([])
            elif word == ">":
                next(lexer)
            else:
                found[-1].append(word)
    return [words for words in found if words]


def check_command(words: list[str]) -> None:
    """Raises if a command names a program, flag, config, key, task, target or file that does not exist."""
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    words = ["python", f"tools/{words[1]}.py", *words[2:]] if words[0] == "ppmtl" else words  # the installed command
    program, scripts = words[0], [word for word in words if SCRIPT.fullmatch(word)]
    python = program == "python" or program.endswith("/python")
    if python and words[1] == "-m":
        assert words[2] in LAUNCHERS, words[2]
    if scripts and (python or program == "docker"):
        check_tool(scripts[0], words[words.index(scripts[0]) + 1 :])
    elif program == "docker" and "ppmtl-serving" in words and words[1] == "run":
        check_tool("deploy/serving/serve.py", ["--model_dir", "/bundle", *words[words.index("ppmtl-serving") + 1 :]])
    elif program == "make":
        targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        assert set(words[1:]) <= set(targets), f"make knows {targets}"
    elif program == "pip":
        assert words[1] == "install"
    else:
        assert program in OTHERS or (python and words[1] == "-m"), f"what is {' '.join(words)}?"
    for flag, value in pairwise(words):
        if (program, flag) in (("pip", "-r"), ("docker", "-f")) and value != "-":
            assert (ROOT / value).is_file(), value


def check_tool(path: str, arguments: list[str]) -> None:
    """Raises if a tool refuses its flags, or its config the overrides and tasks. A stand-in for what only a user has."""
    if "--help" in arguments or not arguments:
        return
    arguments = [{"N": "1", "...": "weights=RUN"}.get(word, word.replace("=...", "=RUN")) for word in arguments]
    given = vars(stopped(path, arguments, parse=True).found)

    from ppmtl import build  # Paddle: the tests of translations and fences do without

    for config in [given.get("config"), *given.get("configs", ())]:
        known = config and str(config).startswith("configs/")
        overrides = [override for group in given.get("overrides", []) for override in group]
        build.load(str(ROOT / (config if known else STAND_IN)), overrides, given.get("tasks"))


def config_of(block: Block, folder: Path) -> Settings:
    """The checked config of a YAML block, on top of its ``_base_`` or of the demo's config."""
    base = yaml.safe_load(block.text).get("_base_", STAND_IN)
    bases = [base] if isinstance(base, str) else [name for name in base if name.startswith("configs/")]
    text = re.sub(r"^_base_:.*\n", "", block.text, flags=re.MULTILINE)
    file = folder / "block.yml"
    file.write_text(f"_base_: {[str(ROOT / name) for name in bases]}\n{text}", encoding="utf-8")
    return check(Settings, load_config(file))


@cache
def keys() -> re.Pattern[str]:
    """Matches the path of every key, and of every mapping of keys."""
    paths = {key.path for key in keys_of(Settings)}
    paths |= {path.rpartition(".")[0] for path in paths}  # model.heads.<head>
    return re.compile("|".join(re.sub(r"<\w+>", r"[\\w<>]+", re.sub(r"\.<n>", r"(\\.\\w+)?", path)) for path in paths))


@cache
def flags() -> frozenset[str]:
    """Every flag of every tool."""
    found, waiting = set(), []
    for path in [*ROOT.glob("tools/*.py"), *ROOT.glob("deploy/*/*.py")]:
        if "def main" in path.read_text(encoding="utf-8"):
            name = str(path.relative_to(ROOT))
            waiting += [stopped(name, [], parse=False).parser]
            waiting += [stopped(name, ["check"], parse=False).parser] if path.stem == "submit" else []
    while waiting:
        for action in waiting.pop()._actions:
            found |= set(action.option_strings)
            waiting += action.choices.values() if isinstance(action, argparse._SubParsersAction) else []
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_fenced_and_says_what_it_is(page: Path) -> None:
    assert [block.where for block in blocks(page) if not block.language] == [], "write ```text for what is only shown"
    indented = re.findall(r"\n\n( {4}[^\s*-].*)", without_blocks(page))
    assert indented == [], "code stands between fences, with its language"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_have_the_programs_flags_configs_and_keys_that_they_name(page: Path) -> None:
    inline = [
        re.sub(r"\[(--.*?)\]", r"\1", span)
        for span in spans(page)
        if re.match(r"(python|ppmtl|make|pip|docker) ", span)
    ]
    overrides = [f"python tools/train.py -c CONFIG {span}" for span in spans(page) if re.match(r"-o [a-z]", span)]
    for text in [*(block.text for block in blocks(page, "bash") if not block.reason), *inline, *overrides]:
        for words in commands(text):
            check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_flags_and_keys_in_the_text_exist(page: Path) -> None:
    named = [word for span in spans(page) for word in re.findall(r"(?<![\w-])--[a-z]\w*[\w-]*", span)]
    assert sorted(set(named) - flags() - FOREIGN_FLAGS) == []
    if page.name != "reproduction.md":  # names transforms by their type; test_reproduction_doc.py knows how
        paths = [found[0] for span in spans(page) if (found := KEY.match(span)) and not FILE.search(span)]
        assert [path for path in paths if not keys().fullmatch(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_yaml_is_a_config(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        if not block.reason:
            config_of(block, tmp_path)


RUN_ALL = """
import sys, traceback
failed = False
for where, code in {blocks!r}:
    try:
        exec(compile(code, where, "exec"), {{"__name__": "pasted"}})
    except Exception:
        failed = True
        traceback.print_exc()
sys.exit(failed)
"""


def test_python_runs_as_pasted(tmp_path: Path) -> None:
    pages = [page for page, name in zip(PAGES, NAMES, strict=True) if name not in ELSEWHERE]
    found = [block for page in pages for block in blocks(page, "python") if not block.reason]
    for block in found:  # one that begins with the name of a file is that file, and others may import it
        if name := re.match(r"# (\w+\.py)\n", block.text):
            (tmp_path / name[1]).write_text(block.text, encoding="utf-8")
    code = RUN_ALL.format(blocks=[(block.where, block.text) for block in found])
    run = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}, '.']\n{code}"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_blocks_were_found() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert {block.language for block in found} == {*RUN, "text"}
    assert all(sum(block.language == language for block in found) >= 5 for language in RUN)


WRONG = {
    "an unknown flag": "python tools/train.py -c configs/allinone_demo.yml --evall",
    "a config that is not there": "python tools/train.py -c configs/allinone.yml",
    "an unknown key": "python tools/train.py -c CONFIG -o train.epoch=3",
    "an unknown task": "python tools/eval.py -c CONFIG -o weights=RUN --tasks seg,dett",
    "an unknown target": "make everything",
    "a missing file": "pip install -r requirements-all.txt",
    "a program of nobody": "pyhton tools/train.py",
    "a flag of the service": "docker run -v DIR:/bundle:ro ppmtl-serving --per_task_sizes",
}


@pytest.mark.parametrize("command", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_is_found(command: str) -> None:
    (words,) = commands(command)
    with pytest.raises((AssertionError, ValueError, FileNotFoundError)):
        check_command(words)


def heading_levels(page: Path) -> list[int]:
    """1 for ``#``, 2 for ``##``, ... in the order of the page."""
    return [len(marks) for marks in re.findall(r"^(#+) ", without_blocks(page), re.MULTILINE)]


def meaning(block: Block) -> Any:
    """What a block does, without its comments, which a translation may translate."""
    parse = {"bash": commands, "yaml": yaml.safe_load, "python": ast.parse}.get(block.language)
    found = parse(block.text) if parse else None
    return block.language, ast.dump(found) if isinstance(found, ast.Module) else found


@pytest.mark.parametrize("chinese", TRANSLATIONS, ids=str)
def test_the_chinese_pages_follow_the_english_ones(chinese: str) -> None:
    page, original = ROOT / chinese, ROOT / TRANSLATIONS[chinese]
    assert heading_levels(page) == heading_levels(original)
    assert [meaning(block) for block in blocks(page)] == [meaning(block) for block in blocks(original)]
    rows = [len(re.findall(r"^\|", without_blocks(each), re.MULTILINE)) for each in (page, original)]
    assert rows[0] == rows[1], "a table has other rows"
