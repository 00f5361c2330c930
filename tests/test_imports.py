"""Who may import whom. docs/architecture.md draws the same picture."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room -> rooms of ppmtl that it may import (itself is always allowed); None = any
ALLOWED = {
    "structures": set(),
    "config": set(),
    "ops": {"structures"},
    "tasks": {"structures", "ops"},
    "inference": {"structures", "ops", "tasks"},
    "predictions": {"structures", "tasks", "drawing"},
    "drawing": {"structures", "tasks"},
    "pictures": set(),
    "flags": {"config", "tasks"},
    "predict": {"structures", "inference", "pictures", "predictions"},
    "video": {"inference", "predictions", "drawing"},
    "report": {"tasks"},
    "submission": {"structures", "ops", "tasks", "data", "pictures"},
    "data": {"structures", "ops", "config", "pictures"},
    "files": set(),
    "models": {"structures", "config", "files"},
    "run": {"config"},
    "engine": {
        "structures",
        "config",
        "ops",
        "tasks",
        "inference",
        "data",
        "run",
        "report",
        "drawing",
        "submission",
        "pictures",
        "files",
    },
    "bundle": {"config", "run", "structures", "tasks", "inference", "files"},
    "export": {
        "structures",
        "files",
        "run",
        "models",
        "bundle",
        "inference",
        "tasks",
        "engine",
        "data",
        "report",
    },
    "build": None,
    "cli": None,
}
WITHOUT_PADDLE = [
    "structures",
    "config",
    "ops",
    "tasks",
    "inference",
    "predictions",
    "drawing",
    "report",
    "run",
    "pictures",
    "flags",
    "predict",
    "video",
]
ENGINES = {"paddle_inference": "paddle", "onnx_runtime": "onnxruntime", "openvino_runtime": "openvino"}
DEPLOY = {
    "config",
    "bundle",
    "pictures",
    "flags",
    "predict",
    "video",
    "inference",
    "tasks",
    "ops",
    "structures",
    "drawing",
    "predictions",
}


def imported(path: Path) -> set[str]:
    """Returns every module named in an import statement of a file, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    """Returns the top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported(path)}


def rooms(path: Path) -> set[str]:
    """Returns the rooms of ppmtl that a file imports."""
    parts = [name.split(".") for name in imported(path) if name.startswith("ppmtl.")]
    return {p[1] for p in parts if (ROOT / "ppmtl" / p[1]).is_dir() or (ROOT / "ppmtl" / f"{p[1]}.py").is_file()}


FILES = sorted((ROOT / "ppmtl").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "ppmtl").parts[0].removesuffix(".py")


def test_the_rule_knows_every_room():
    assert len(FILES) > 30
    assert {room_of(path) for path in FILES} - {"__init__"} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path)
    allowed = ALLOWED.get(room, set())
    if allowed is not None:
        assert rooms(path) - {room} <= allowed
    if room in WITHOUT_PADDLE:
        assert "paddle" not in packages(path)
    if room == "bundle":  # each engine is imported by its own file and nowhere else
        assert packages(path) & set(ENGINES.values()) == ({ENGINES[path.stem]} if path.stem in ENGINES else set())


def test_deployment_needs_no_training_code():
    for path in (ROOT / "deploy").rglob("*.py"):
        assert rooms(path) <= DEPLOY, path


def test_reading_a_bundle_imports_no_engine():
    engines = {*ENGINES.values(), *(f"ppmtl.bundle.{name}" for name in ENGINES)}
    code = f"import sys, ppmtl.bundle.reading, ppmtl.bundle.backends; sys.exit(bool({engines} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_importing_ppmtl_imports_nothing_heavy():
    code = "import sys, ppmtl; sys.exit(bool({'paddle', 'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
