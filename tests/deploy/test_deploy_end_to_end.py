"""From a bundle to an answer with what the container holds, alone in an empty folder.

Neither the rest of the project nor packages that the image lacks can be imported there.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import container_image as image
import cv2
import numpy as np
import pytest
from serving_process import serving

TIES = 1e-3  # share of pixels: where two classes are equally likely, the last digit decides
PICTURES = ("a.png", "b.jpg", "c.webp", "d.png")


@pytest.fixture(scope="module")
def work(exported, tmp_path_factory) -> Path:
    """A folder with what tools/infer.py says ("expected"), the container's files ("app") and "hidden"."""
    folder = tmp_path_factory.mktemp("end_to_end")
    weights = ["-c", exported / "tiny.yml", "-o", f"weights={exported / 'random'}", "data_root=none"]
    flags = [*weights, "--infer_dir", exported / "pictures", "--output_dir", folder / "expected"]
    assert image.script("tools/infer.py").main(list(map(str, flags))) == 0
    image.lay_out(folder / "app")
    image.hide_other_packages(folder / "hidden")
    return folder


def environment(work: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(work / "hidden"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work / "none")}


def assert_same(found: dict, labels: np.ndarray, name: str, work: Path) -> None:
    """``found`` has "cls" and "det" as both the JSON files and the service write them."""
    stem = Path(name).stem
    expected = json.loads((work / "expected" / f"{stem}.json").read_text())
    top, wanted = found["cls"]["top"], expected["cls"]["top"]
    assert [row["class"] for row in top] == [row["class"] for row in wanted]
    assert [row["score"] for row in top] == pytest.approx([row["score"] for row in wanted], abs=1e-4)
    assert len(found["det"]["boxes"]) == len(expected["det"]["boxes"]) > 0
    for box, same in zip(found["det"]["boxes"], expected["det"]["boxes"], strict=True):
        assert box["class"] == same["class"]
        assert box["score"] == pytest.approx(same["score"], abs=1e-4)
        assert box["bbox"] == pytest.approx(same["bbox"], abs=0.05)
    right = cv2.imread(str(work / "expected" / f"{stem}_seg.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == right.shape
    assert len(np.unique(right)) > 1
    assert np.mean(labels != right) < TIES


def test_what_the_image_lacks_is_hidden_and_what_it_has_is_not(work):
    hidden = {path.name for path in (work / "hidden").iterdir()}
    assert {"pytest", "faster_coco_eval", "matplotlib"} <= hidden
    assert not {"paddle", "numpy", "cv2", "fastapi", "google"} & hidden
    assert not (work / "app" / "tools").exists()


def test_infer_in_the_container_answers_what_tools_infer_answers(exported, work):
    command = ["deploy/python/infer.py", "--model_dir", exported / "bundle", "--cpu_threads", "1",
               "--image_dir", exported / "pictures", "--output_dir", work / "found"]  # fmt: skip
    done = subprocess.run([sys.executable, *map(str, command)], cwd=work / "app", capture_output=True, text=True,
                          env={**os.environ, **environment(work)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in PICTURES:
        stem = Path(name).stem
        labels = cv2.imread(str(work / "found" / f"{stem}_seg.png"), cv2.IMREAD_UNCHANGED)
        assert_same(json.loads((work / "found" / f"{stem}.json").read_text()), labels, name, work)


def test_the_container_serves_what_tools_infer_answers(exported, work):
    start = image.command("ENTRYPOINT")[1:]
    script = work / "app" / start[0]
    # The last of two equal flags counts: the bundle and the port are other ones here, and nothing is opened to others.
    here = ("--model_dir", exported / "bundle", "--host", "127.0.0.1", "--port", "0")
    with serving(script, *start[1:], *here, **environment(work)) as server:
        pictures = [(exported / "pictures" / name).read_bytes() for name in PICTURES]
        answer = server.post(*pictures, threshold="0").json()
        assert server.get("page/app.js").status_code == 200
        # The network brings signal handlers of its own; an end with 0 proves that they did not stay.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    for name, result in zip(PICTURES, answer["results"], strict=True):
        png = np.frombuffer(base64.b64decode(result["seg"]["mask"]["data"]), np.uint8)
        assert_same(result, cv2.imdecode(png, cv2.IMREAD_UNCHANGED), name, work)


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("PPMTL_CONTAINER_CHECK") != "1",
    reason="installs 1 GB: PPMTL_CONTAINER_CHECK=1 (make container-check)",
)
def test_the_steps_of_the_dockerfile_in_a_fresh_environment_serve_what_tools_infer_answers(exported, work, capsys):
    begun = time.perf_counter()
    fresh = work / "fresh"
    venv.create(fresh, with_pip=True)
    path = {**os.environ, "PATH": f"{fresh / 'bin'}:{os.environ['PATH']}"}
    runs = [line for line in image.values("RUN") if "apt-get" not in line]
    assert len(runs) == 2
    for line in runs:
        subprocess.run(line, shell=True, cwd=work / "app", env=path, check=True, stdout=subprocess.DEVNULL)
    installed = time.perf_counter()
    start = image.command("ENTRYPOINT")
    here = ("--model_dir", exported / "bundle", "--host", "127.0.0.1", "--port", "0")
    become = f"import os, sys; os.chdir({str(work / 'app')!r}); os.execv(sys.argv[1], sys.argv[1:])"
    variables = dict(pair.split("=", 1) for line in image.values("ENV") for pair in shlex.split(line))
    with serving("-c", become, fresh / "bin" / "python", *start[1:], *here, **variables) as server:
        ready = time.perf_counter()
        pictures = [(exported / "pictures" / name).read_bytes() for name in PICTURES]
        results = server.post(*pictures, threshold="0").json()["results"]
        health = [word.replace("8000", str(server.port)) for word in image.command("HEALTHCHECK")]
        subprocess.run([fresh / "bin" / "python", *health[1:]], check=True)
        memory = Path(f"/proc/{server.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    for name, result in zip(PICTURES, results, strict=True):
        png = np.frombuffer(base64.b64decode(result["seg"]["mask"]["data"]), np.uint8)
        assert_same(result, cv2.imdecode(png, cv2.IMREAD_UNCHANGED), name, work)
    size = subprocess.run(["du", "-sm", fresh], capture_output=True, text=True, check=True).stdout.split()[0]
    with capsys.disabled():
        print(f"\ninstalled in {installed - begun:.0f} s, {size} MiB; ready after {ready - installed:.1f} s; "
              f"at most {int(memory) >> 10} MiB of memory")  # fmt: skip
