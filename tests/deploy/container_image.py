"""The Dockerfile, read and done by hand where no container engine runs."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import shlex
import shutil
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"


def script(path: str) -> ModuleType:
    """A script of the project as a module; called in this process, because importing Paddle takes seconds."""
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_script", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps() -> list[tuple[str, str]]:
    """(instruction, the rest of its line) in order; continued lines are joined, comments left out."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def values(instruction: str) -> list[str]:
    """The rest of every line with that instruction."""
    return [rest for word, rest in steps() if word == instruction]


def command(instruction: str) -> list[str]:
    """The words of ENTRYPOINT or HEALTHCHECK, which must be in the exec form: no shell in between."""
    (line,) = values(instruction)
    return json.loads(line[line.index("[") :])


def copies() -> list[tuple[str, str]]:
    """(source in the project, target in /app) of every file and folder that is copied."""
    pairs = []
    for line in values("COPY"):
        *sources, target = line.split()
        pairs += [(source, f"{target}{source}" if target.endswith("/") else target) for source in sources]
    return pairs


def requirement_files() -> list[str]:
    """What is installed: the files after -r of the pip command."""
    (line,) = (rest for rest in values("RUN") if "pip install" in rest)
    words = shlex.split(line)
    return [words[i + 1] for i, word in enumerate(words) if word == "-r"]


def sent(path: str) -> bool:
    """Whether Dockerfile.dockerignore lets a file of the project into the build: its last match counts."""
    ignored = False
    for pattern in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.removeprefix("!").removeprefix("**/")
        parts = Path(path).parts
        whole = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        names = [*parts, *whole] if "**/" in pattern else whole
        if any(fnmatch.fnmatch(name, bare) for name in names):
            ignored = not pattern.startswith("!")
    return not ignored


def lay_out(app: Path) -> None:
    """Copies into ``app`` what the image has in /app."""
    for source, target in copies():
        (app / target).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, app / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, app / target)


def packages() -> set[str]:
    """The names of all packages in the image: those of the requirement files and what they need in turn."""
    todo = [named for file in requirement_files() for named in requirements(file)]
    found: set[str] = set()
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name not in found:
            found.add(name)
            needed = map(Requirement, requires(name) or [])
            todo += [need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def requirements(file: str) -> list[Requirement]:
    """The packages that a requirement file names."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def hide_other_packages(folder: Path) -> None:
    """Writes modules into ``folder`` that fail on import, one for each that is installed here and not in the image."""
    there = packages()
    for module, owners in packages_distributions().items():
        if not there & {canonicalize_name(owner) for owner in owners} and module.isidentifier():
            (folder / module).mkdir(parents=True)
            (folder / module / "__init__.py").write_text(
                f'raise ModuleNotFoundError("not in the image", name="{module}")\n'
            )
