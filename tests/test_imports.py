"""Who may import whom. docs/architecture.md draws the same table."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room -> rooms of ppmtl, or modules of them, that it may import (itself is always allowed). Imports run downhill.
ALLOWED = {
    "structures": set(),
    "files": set(),
    "system": set(),
    "tables": set(),
    "html_page": set(),
    "config": set(),
    "ops": {"structures"},
    "tasks": {"structures", "ops", "data.labels"},
    "data": {"structures", "system", "ops", "config", "tasks"},
    "models": {"structures", "config", "ops", "weights.names"},
    "weights": {"structures", "system", "config", "files"},
    "predict": {"structures", "files", "tables", "ops", "tasks", "data"},
    "train": {"structures", "system", "config", "files", "ops", "tasks", "data", "models", "weights", "predict"},
    "bundle": {
        "structures",
        "config",
        "files",
        "tables",
        "ops",
        "tasks",
        "data",
        "models",
        "predict",
        "train",
        "build",
    },
    "challenge": {"structures", "config", "files", "tables", "ops", "tasks", "data", "predict", "train", "build"},
    "convert": {"structures", "files", "tables", "ops", "data"},
    "studies": None,  # looks at everything
    "doctor": None,  # looks at a run with its data; tools/doctor.py, and start before training
    "build": None,  # knows all parts
    "__init__": {"api", "predict"},  # the names of the Python API, imported when they are used
    "__main__": {"cli", "config"},
    "api": None,  # the Python API, on top of everything but the studies
    "start": None,  # what tools/train.py and tools/eval.py do
    "cli": {"config", "tasks", "train", "build"},
}
# What deployment can load: no training, no models, and of bundle the reading half only
DEPLOY = {"structures", "system", "config", "ops", "tasks", "predict", "cli", "files", "tables", "data.images"}
DEPLOY |= {"bundle.reading", "bundle.settings", "bundle.engines"}
WITHOUT_PADDLE = [
    "structures",
    "system",
    "files",
    "tables",
    "html_page",
    "config",
    "ops",
    "tasks",
    "predict",
    "challenge",
]
WITHOUT_PADDLE += ["convert", "cli"]
ENGINES = {"paddle_inference": "paddle", "onnx_runtime": "onnxruntime", "openvino_runtime": "openvino"}


def imported(path: Path) -> set[str]:
    """Every module named in an import statement of a file, at any depth, with the names imported from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported(path)}


def modules(path: Path) -> set[str]:
    """What a file imports from ppmtl, without the prefix: "data.labels.Boxes", "config.ConfigError"."""
    return {name.removeprefix("ppmtl.") for name in imported(path) if name.startswith("ppmtl.")}


def rooms(path: Path) -> set[str]:
    """The rooms of ppmtl that a file imports."""
    return {name.split(".")[0] for name in modules(path)} & set(ALLOWED)


def refused(path: Path, allowed: set[str]) -> list[str]:
    """What a file imports from ppmtl beside ``allowed``."""
    known = [name for name in modules(path) if name.split(".")[0] in ALLOWED]
    return sorted(name for name in known if not any(f"{name}.".startswith(f"{room}.") for room in allowed))


FILES = sorted((ROOT / "ppmtl").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "ppmtl").parts[0].removesuffix(".py")


def test_the_table_knows_every_room():
    assert len(FILES) > 30
    assert {room_of(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path)
    allowed = ALLOWED.get(room, set())
    if allowed is not None:
        assert refused(path, {room, *allowed}) == []
    if room in WITHOUT_PADDLE:
        assert "paddle" not in packages(path)
    if path.parent.name == "engines":  # each engine is imported by its own file and nowhere else
        assert packages(path) & set(ENGINES.values()) == ({ENGINES[path.stem]} if path.stem in ENGINES else set())


@pytest.mark.parametrize("top", ["studies", "api"])
def test_nothing_imports_the_studies_nor_the_api(top):
    importing = [path for path in FILES if top in rooms(path) and room_of(path) != top]
    assert importing == ([ROOT / "ppmtl/__init__.py"] if top == "api" else [])


def test_deployment_needs_no_training_code():
    paths = sorted((ROOT / "deploy").rglob("*.py"))
    assert sum(bool(rooms(path)) for path in paths) > 5
    assert {str(path): found for path in paths if (found := refused(path, DEPLOY))} == {}


@pytest.mark.parametrize(
    "statement", ["import ppmtl.bundle.reading, ppmtl.bundle.engines.backend", "import ppmtl.predict.files"]
)
def test_reading_a_bundle_and_predicting_import_no_engine_and_no_training(statement):
    heavy = [*ENGINES.values(), *(f"ppmtl.{room}" for room in ("models", "train", "weights", "build", "studies"))]
    code = f"import sys; {statement}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_ppmtl_imports_nothing_heavy():
    code = "import sys, ppmtl; dir(ppmtl); ppmtl.train; sys.exit(bool({'paddle', 'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
