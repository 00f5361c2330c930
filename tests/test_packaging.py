"""What is installed: files, command, extras, version. The package is built as pip builds it, but for the archive."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ppmtl
from ppmtl import cli

ROOT = Path(__file__).resolve().parents[1]
HOMES = {"ppmtl": "ppmtl", "tools": "ppmtl_tools", "deploy": "ppmtl_deploy", "configs": "ppmtl/configs"}
EXTRAS = {"cpu": "cpu", "export": "deploy", "serving": "serving", "vdl": "vdl"}  # {extra: its requirements-*.txt}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with what an installation puts into site-packages."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in HOMES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "setup.py", ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, source)
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "--egg-base", str(site)]
    done = subprocess.run(
        [*command, "build_py", "--build-lib", str(site)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return site


@pytest.fixture(scope="module")
def metadata(site) -> PathDistribution:
    return PathDistribution(site / "ppmtl.egg-info")


def installed(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the installed package, away from the source tree."""
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def names(file: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def test_every_file_is_installed_and_no_name_is_taken_that_others_may_have(site):
    count = 0
    for folder, home in HOMES.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and inside.parts[0] != "docker"
                and path.suffix != ".md"
            ):
                assert (site / home / inside).read_bytes() == path.read_bytes()
                count += 1
    assert count > 300
    assert {path.name for path in site.iterdir()} == {"ppmtl", "ppmtl_tools", "ppmtl_deploy", "ppmtl.egg-info"}


def test_extras_and_requirements_are_those_of_the_files_and_no_range_is_written_twice(metadata):
    needed = [Requirement(text) for text in metadata.requires or []]
    found = {extra: {(n.name, n.specifier) for n in needed if extra in str(n.marker)} for extra in EXTRAS}
    assert found == {
        extra: {(n.name, n.specifier) for n in names(f"requirements-{file}.txt")} for extra, file in EXTRAS.items()
    }
    assert {n.name for n in needed if n.marker is None} == {n.name for n in names("requirements-base.txt")}
    files = ("base", "cpu", "deploy", "serving", "vdl", "runtime", "dev")
    ranged = [n.name for file in files for n in names(f"requirements-{file}.txt") if n.specifier]
    assert sorted(ranged) == sorted(set(ranged))
    assert "paddlepaddle" in ranged


def test_the_version_is_written_once_and_the_changes_know_it(site, metadata, tmp_path):
    assert metadata.version == ppmtl.__version__
    assert installed(site, tmp_path, "-m", "ppmtl", "--version").stdout == f"ppmtl {ppmtl.__version__}\n"
    assert f"\n## {ppmtl.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (entry,) = metadata.entry_points
    assert (entry.name, entry.value) == ("ppmtl", "ppmtl.__main__:main")


RECORD = """
import os, sys
import ppmtl.__main__ as command
from ppmtl import cli
before = list(sys.path)
cli.run = lambda main: print(sys.argv, main.__module__, sys.path[:2] == before[:2])
for name in sys.argv[1:]:
    sys.argv = ["ppmtl", name, "--flag"]
    command.main()
"""


def test_every_tool_is_a_command_of_the_installed_package(site, tmp_path):
    listed = installed(site, tmp_path, "-m", "ppmtl").stdout
    commands = re.findall(r"^  (\w+)$", listed, re.MULTILINE)
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert set(commands) == tools - {"export_model", "make_demo_data"} | set(cli.COMMANDS)
    done = installed(site, tmp_path, "-c", RECORD, *commands, "export_model")
    assert done.returncode == 0, done.stderr
    rows = [f"['ppmtl {name}', '--flag'] {module(name)} True" for name in (*commands, "export_model")]
    assert done.stdout.splitlines() == rows


def module(command: str) -> str:
    return f"ppmtl_{cli.COMMANDS.get(command, f'tools/{command}.py')}".removesuffix(".py").replace("/", ".")


def test_the_command_speaks_of_itself_and_knows_what_was_meant(site, tmp_path):
    text = installed(site, tmp_path, "-m", "ppmtl", "eval", "--help").stdout
    assert "ppmtl eval -c configs/allinone_demo.yml" in text
    assert "what ppmtl export wrote" in " ".join(text.split())
    assert ".py" not in text
    wrong = installed(site, tmp_path, "-m", "ppmtl", "tran")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("ppmtl: 'tran' is no command; did you mean 'train'? allowed: benchmark, ")


@pytest.mark.parametrize("where", ["installed", "source"])
def test_configs_that_ppmtl_brings_are_found_by_name_with_their_parents(site, where, tmp_path):
    code = "from ppmtl.config import load_config; t = load_config('{}'); print(t.file, t.data['model']['backbone']['type'])"
    root, home = (site, site / "ppmtl/configs") if where == "installed" else (ROOT, ROOT / "configs")
    for name in ("configs/allinone_demo.yml", "allinone_demo.yml"):
        done = installed(root, tmp_path, "-c", code.format(name))
        assert done.stdout.split() == [str(home / "allinone_demo.yml"), "convnext"], done.stderr
    wrong = installed(root, tmp_path, "-c", code.format("allinone_dmeo.yml"))
    assert "allinone_dmeo.yml does not exist; did you mean 'allinone_demo.yml', which ppmtl brings?" in wrong.stderr
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/allinone_demo.yml").write_text("model: {backbone: {type: mine}}")
    done = installed(root, tmp_path, "-c", code.format("configs/allinone_demo.yml"))
    assert done.stdout.split() == ["configs/allinone_demo.yml", "mine"]
