"""Who may import whom. docs/architecture.md draws the same picture."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room -> rooms of ppmtl that it may import (itself is always allowed); None = any. Imports run downhill.
ALLOWED = {
    "structures": set(),
    "files": set(),
    "tables": set(),
    "config": set(),
    "ops": {"structures"},
    "tasks": {"structures", "ops"},
    "data": {"structures", "ops", "config"},
    "models": {"structures", "config"},
    "weights": {"structures", "config", "files"},
    "predict": {"structures", "ops", "tasks", "data"},
    "train": {"structures", "config", "files", "ops", "tasks", "data", "models", "predict"},
    "bundle": {"structures", "config", "files", "tasks", "data", "models", "predict"},
    "challenge": {"structures", "config", "ops", "tasks", "data", "predict"},
    "studies": None,
    "flags": {"config", "tasks"},
    "build": None,
    "cli": None,
}
WITHOUT_PADDLE = ["structures", "files", "config", "ops", "tasks", "predict", "challenge", "flags"]
ENGINES = {"paddle_inference": "paddle", "onnx_runtime": "onnxruntime", "openvino_runtime": "openvino"}
# What deployment sees: of bundle the reading half, of data the reader of images
DEPLOY = {
    "structures",
    "config",
    "ops",
    "tasks",
    "predict",
    "flags",
    "data.images",
    "bundle.reading",
    "bundle.settings",
    "bundle.engines",
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
    return rooms_of_names(imported(path))


def rooms_of_names(names: set[str]) -> set[str]:
    """Returns the rooms of ppmtl among module names."""
    parts = [name.split(".") for name in names if name.startswith("ppmtl.")]
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
    if room == "bundle" and path.parent.name == "engines":  # each engine is imported by its own file and nowhere else
        assert packages(path) & set(ENGINES.values()) == ({ENGINES[path.stem]} if path.stem in ENGINES else set())


def test_nothing_imports_the_studies():
    assert [path for path in FILES if "studies" in rooms(path) and room_of(path) != "studies"] == []


def test_deployment_needs_no_training_code():
    seen = 0
    for path in (ROOT / "deploy").rglob("*.py"):
        names = {name for name in imported(path) if name.count(".") and rooms_of_names({name})}
        seen += len(names)
        allowed = [f"ppmtl.{part}" for part in DEPLOY]
        # "from ppmtl.data import images" names ppmtl.data too; what counts is the deepest name
        deepest = {name for name in names if not any(other.startswith(f"{name}.") for other in names)}
        assert [n for n in sorted(deepest) if not any(f"{n}.".startswith(f"{a}.") for a in allowed)] == [], path
    assert seen > 20


def test_reading_a_bundle_imports_no_engine():
    engines = {*ENGINES.values(), *(f"ppmtl.bundle.engines.{name}" for name in ENGINES)}
    code = (
        f"import sys, ppmtl.bundle.reading, ppmtl.bundle.engines.backend; sys.exit(bool({engines} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_importing_ppmtl_imports_nothing_heavy():
    code = "import sys, ppmtl; sys.exit(bool({'paddle', 'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
