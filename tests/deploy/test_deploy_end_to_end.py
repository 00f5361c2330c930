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
import venv
from pathlib import Path

import container_image as image
import cv2
import numpy as np
import pytest
from same_answers import assert_same, assert_same_map
from serving_process import serving

from ppmtl.data.label_maps import read_label_map


@pytest.fixture(scope="module")
def work(exported, tmp_path_factory) -> Path:
    """A folder with what tools/infer.py says ("expected"), the container's files ("app") and "hidden"."""
    folder = tmp_path_factory.mktemp("end_to_end")
    weights = ["-c", exported / "tiny.yml", "-o", f"weights={exported / 'random'}", "data_root=none"]
    flags = [*weights, "--infer_dir", exported / "pictures", "--output_dir", folder / "expected", "--threshold", "0"]
    assert image.script("tools/infer.py").main(list(map(str, flags))) == 0
    image.lay_out(folder / "app")
    image.hide_other_packages(folder / "hidden")
    return folder


def environment(work: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(work / "hidden"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work / "none")}


def assert_serves(exported: Path, work: Path, python: Path | str, **variables: str) -> None:
    """Starts the image's entry point and health check; the answers are those of tools/infer.py."""
    start = image.command("ENTRYPOINT")[1:]
    become = f"import os, sys; os.chdir({str(work / 'app')!r}); os.execv(sys.argv[1], sys.argv[1:])"
    # The last of two equal flags counts: the bundle and the port are other ones here, and nothing is opened to others.
    here = ("--model_dir", exported / "bundle", "--host", "127.0.0.1", "--port", "0")
    images = sorted((exported / "pictures").iterdir())
    with serving("-c", become, python, *start, *here, **variables) as server:
        results = server.post(*(path.read_bytes() for path in images), threshold="0").json()["results"]
        assert server.get("page/app.js").status_code == 200
        health = [word.replace("8000", str(server.port)) for word in image.command("HEALTHCHECK")]
        subprocess.run([python, *health[1:]], check=True)
        # The network brings signal handlers of its own; an end with 0 proves that they did not stay.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert len(results) == 4
    for path, result in zip(images, results, strict=True):
        assert_same(result, json.loads((work / "expected" / f"{path.stem}.json").read_text()))
        png = np.frombuffer(base64.b64decode(result["seg"]["mask"]["data"]), np.uint8)
        expected = read_label_map(work / "expected" / f"{path.stem}_seg.png")
        assert_same_map(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), expected)


def test_what_the_image_lacks_is_hidden_and_what_it_has_is_not(work):
    hidden = {path.name for path in (work / "hidden").iterdir()}
    assert {"pytest", "faster_coco_eval", "matplotlib"} <= hidden
    assert not {"paddle", "numpy", "cv2", "fastapi", "google"} & hidden
    assert not (work / "app" / "tools").exists()


def test_infer_runs_in_the_container(exported, work):
    command = ["deploy/python/infer.py", "--model_dir", exported / "bundle", "--cpu_threads", "1",
               "--image_dir", exported / "pictures", "--output_dir", work / "found"]  # fmt: skip
    everything = {**os.environ, **environment(work)}
    subprocess.run([sys.executable, *map(str, command)], cwd=work / "app", env=everything, check=True)
    assert len(list((work / "found").glob("*.json"))) == 4


def test_the_container_serves_what_tools_infer_answers(exported, work):
    assert_serves(exported, work, sys.executable, **environment(work))


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("PPMTL_CONTAINER_CHECK") != "1",
    reason="installs 1 GB: PPMTL_CONTAINER_CHECK=1 (make container-check)",
)
def test_the_steps_of_the_dockerfile_in_a_fresh_environment_serve_what_tools_infer_answers(exported, work):
    venv.create(work / "fresh", with_pip=True)
    python = work / "fresh" / "bin" / "python"
    path = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    runs = [line for line in image.values("RUN") if "apt-get" not in line]
    assert len(runs) == 2
    for line in runs:
        subprocess.run(line, shell=True, cwd=work / "app", env=path, check=True, stdout=subprocess.DEVNULL)
    variables = dict(pair.split("=", 1) for line in image.values("ENV") for pair in shlex.split(line))
    assert_serves(exported, work, python, **variables)
