"""serve.py as people start it: mistakes are one line; the key. What it answers: test_deploy_end_to_end.py."""

import pytest
import serve
from container_image import ROOT
from ppmtl_service.server import bind
from serving_process import Server, serving

SERVE = ROOT / "deploy" / "serving" / "serve.py"


def error_of(*arguments: object) -> str:
    server = Server(SERVE, *arguments)
    assert server.process.wait(60) in (1, 2)
    error = server.process.stderr.read()
    assert "Traceback" not in error
    return error


def test_a_mistake_is_an_error_that_names_it(exported, tmp_path):
    for file in (exported / "bundle").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "trunk.pdiparams"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (tmp_path / "key").write_text("\n")
    assert "trunk.pdiparams" in error_of("--model_dir", tmp_path)
    assert "no such folder" in error_of("--model_dir", tmp_path / "none")
    assert "key is empty" in error_of("--model_dir", exported / "bundle", "--api_key_file", tmp_path / "key")
    with bind("127.0.0.1", 0) as taken:
        assert "in use" in error_of("--model_dir", exported / "bundle", "--port", taken.getsockname()[1])


def test_the_key_is_asked_for_and_never_logged(exported):
    with serving(SERVE, "--model_dir", exported / "bundle", "--port", 0, PPMTL_API_KEY="open sesame") as server:
        assert server.get("v1/model").status_code == 401
        server.headers["Authorization"] = "Bearer open sesame"
        assert server.get("v1/model").status_code == 200
        assert "sesame" not in str(server.log)


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("from file\n")
    assert serve.read_api_key(None) is None
    monkeypatch.setenv(serve.KEY_VARIABLE, "s\u00e9same ")
    assert serve.read_api_key(None) == b"s\xc3\xa9same"
    assert serve.read_api_key(str(tmp_path / "key")) == b"from file"


@pytest.mark.parametrize("flag", [["--max_batch", "0"], ["--timeout_s", "0"], ["--queue_size", "3"]])
def test_a_limit_that_makes_no_sense_is_refused_by_its_flags_name(flag):
    with pytest.raises(ValueError, match=flag[0]):
        serve.main(["--model_dir", "none", *flag])
