"""Where a system lacks what Linux has (Windows, partly macOS): everything imports, images are predicted, what lacks is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ppmtl import system
from ppmtl.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
# What Windows' Python does not have, of what ppmtl uses or could use by mistake
LACKING = """
import importlib.abc, math, os, pkgutil, runpy, signal, sys

class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("resource", "fcntl", "termios", "pwd", "grp"):
            raise ModuleNotFoundError(f"not on this system: {name}", name=name)

for name in ("resource", "fcntl", "termios", "pwd", "grp"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Lacking())
for name in ("setsid", "killpg", "getpgid", "setpgid", "sched_getaffinity", "environb", "getuid", "geteuid"):
    delattr(os, name)
del signal.SIGKILL
"""
IMPORT = """
import ppmtl
OPTIONAL = ("openvino", "onnxruntime", "paddle2onnx")
count = 0
for found in pkgutil.walk_packages(ppmtl.__path__, "ppmtl."):
    try:
        importlib.import_module(found.name)
        count += 1
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
print("imported", count)
"""
PREDICT = """
from pathlib import Path
from ppmtl import system
from ppmtl.files import atomic_write
from ppmtl.train.log import peak_memory_mib

for folder in ("random", "bundle"):
    result = ppmtl.load(folder).predict("pictures/d.png", score_threshold=0)
    print(folder, *result, result.save("api").name)
sys.argv = ["infer.py", "-c", "tiny.yml", "-o", "weights=random", "--device", "cpu", "--infer_img", "pictures/a.png",
            "--output_dir", "tool"]
tool = runpy.run_path(TOOL)
print("infer", tool["main"](sys.argv[1:]))
system.leave_process_group()
with system.locked(Path("no.lock")):
    print("memory", system.peak_memory_mib(), peak_memory_mib())
"""


def test_everything_imports_and_predicts_without_what_windows_lacks(exported, tmp_path):
    for name in ("random", "bundle", "pictures", "tiny.yml"):
        (tmp_path / name).symlink_to(exported / name)
    code = "\n".join([LACKING, IMPORT, f"TOOL = {str(ROOT / 'tools/infer.py')!r}", PREDICT])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    imported = next(int(line.split()[1]) for line in lines if line.startswith("imported"))
    assert imported > 150
    assert {"random seg cls det d.jpg", "bundle seg cls det d.jpg", "infer 0", "memory nan nan"} <= set(lines)
    assert sorted(path.name for path in (tmp_path / "tool").iterdir()) == [
        "a.jpg",
        "a.json",
        "a_seg.png",
        "predictions",
    ]


def test_peak_memory_is_that_of_the_process():
    assert 10 < system.peak_memory_mib() < 1 << 20


def test_a_file_is_flushed_through_a_handle_that_may_write_as_windows_asks(tmp_path, monkeypatch):
    opened, real = {}, os.open

    def record(path, flags):
        opened[Path(path).name] = flags
        return real(path, flags)

    monkeypatch.setattr(os, "open", record)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert opened == {".file.new": os.O_RDWR, tmp_path.name: os.O_RDONLY}
