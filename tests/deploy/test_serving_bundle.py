"""A real bundle: exported, served, and its answers equal to those of tools/infer.py."""

import base64
import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from serving_process import Server, serving
from small_model import tool, write_model

from ppmtl.data.images import read_image

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "deploy" / "serving" / "serve.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a tiny config, random weights, their bundle, three pictures, and what tools/infer.py says of them."""
    folder = tmp_path_factory.mktemp("serving")
    write_model(folder)
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (64, 96)), ("b.jpg", (90, 70)), ("c.webp", (120, 200))):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 4)
        cv2.imwrite(str(folder / "pictures" / name), cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))
    common = ("-c", "tiny.yml", "-o", "weights=random", "data_root=none")
    tool("export_model", *common, "--verify_images", "1", cwd=folder)
    tool("infer", *common, "--infer_dir", "pictures", "--output_dir", "expected", cwd=folder)
    return folder


def test_served_answers_equal_those_of_infer(work):
    bundle = work / "output_inference" / "tiny"
    with serving(SERVE, "--model_dir", bundle, "--port", 0, PPMTL_API_KEY="open sesame") as server:
        assert server.get("v1/model").status_code == 401
        server.headers["Authorization"] = "Bearer open sesame"
        paths = sorted((work / "pictures").iterdir())
        answer = server.post(*(path.read_bytes() for path in paths), threshold="0").json()
        for path, result in zip(paths, answer["results"], strict=True):
            expected = json.loads((work / "expected" / f"{path.stem}.json").read_text())
            assert [result["height"], result["width"]] == expected["size"] == list(read_image(path).shape[:2])
            assert_same_boxes(result["det"]["boxes"], expected["det"]["boxes"])
            assert_same_top(result["cls"]["top"], expected["cls"]["top"])
            png = np.frombuffer(base64.b64decode(result["seg"]["mask"]["data"]), np.uint8)
            labels = cv2.imread(str(work / "expected" / f"{path.stem}_seg.png"), cv2.IMREAD_UNCHANGED)
            served = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
            assert served.dtype == np.uint8
            assert np.mean(served != labels) < 1e-3  # ties of two classes may fall either way
            assert len(np.unique(labels)) > 1
        assert "sesame" not in json.dumps(server.log)
        # The network brings signal handlers of its own; a drain proves that they did not stay.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def assert_same_boxes(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["class"] == other["class"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)


def assert_same_top(found, expected):
    assert [row["class"] for row in found] == [row["class"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-4)


def run_to_its_end(*arguments: object) -> str:
    server = Server(SERVE, *arguments)
    assert server.process.wait(60) in (1, 2)
    return server.process.stderr.read()


def test_a_damaged_bundle_is_an_error_that_names_the_file(work, tmp_path):
    for file in (work / "output_inference" / "tiny").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "trunk.pdiparams"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    error = run_to_its_end("--model_dir", tmp_path)
    assert "trunk.pdiparams" in error
    assert "Traceback" not in error
    assert "no such folder" in run_to_its_end("--model_dir", tmp_path / "none")


def test_a_taken_port_and_an_empty_key_are_errors_without_traceback(work, tmp_path):
    from ppmtl_service.server import bind

    bundle = work / "output_inference" / "tiny"
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        error = run_to_its_end("--model_dir", bundle, "--port", taken.getsockname()[1])
    assert "in use" in error
    (tmp_path / "key").write_text("\n")
    assert "key is empty" in run_to_its_end("--model_dir", bundle, "--api_key_file", tmp_path / "key")
    assert "Traceback" not in error


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    import serve

    (tmp_path / "key").write_text("from file\n")
    assert serve.read_api_key(None) is None
    assert serve.read_api_key(str(tmp_path / "key")) == b"from file"
    monkeypatch.setenv(serve.KEY_VARIABLE, "s\u00e9same ")
    assert serve.read_api_key(None) == b"s\xc3\xa9same"
    assert serve.read_api_key(str(tmp_path / "key")) == b"from file"
