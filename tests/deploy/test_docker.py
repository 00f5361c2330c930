"""The container's files, as far as they can be checked without an engine. Their steps are done in test_deploy_end_to_end.py."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import container_image as image
import pytest
import serve
import yaml

SERVE = image.command("ENTRYPOINT")
(SERVICE,) = yaml.safe_load((image.DOCKER / "compose.yml").read_text())["services"].values()


def test_whatever_is_copied_exists_and_is_sent_to_the_build():
    copied = image.copies()
    assert len(copied) >= 6
    for source, _ in copied:
        assert (image.ROOT / source).exists(), source
        assert image.sent(source), source
    assert {*image.requirement_files(), "requirements-base.txt", "requirements-cpu.txt"} <= {
        source for source, _ in copied
    }


@pytest.mark.parametrize(
    "path", [".git/config", ".env", "key.txt", "output/best/model.safetensors", "deploy/docker/key.txt"]
)
def test_keys_and_weights_are_not_sent_to_the_build(path):
    assert not image.sent(path)


def test_the_entry_point_serves_the_mounted_bundle_on_the_port_that_is_published_to_this_machine():
    flags = serve._parser().parse_args([*SERVE[2:], *SERVICE["command"]])
    assert (image.ROOT / SERVE[1]).samefile(serve.__file__)
    assert SERVICE["ports"] == [f"127.0.0.1:{flags.port}:{flags.port}"]
    (mount,) = SERVICE["volumes"]
    assert (mount["target"], mount["read_only"]) == (flags.model_dir, True)
    grace = float(SERVICE["stop_grace_period"].removesuffix("s"))
    assert grace >= flags.timeout_s + 5, "the service is killed before its requests are finished"


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
    code = image.command("HEALTHCHECK")[2].replace("8000", str(server.server_port))

    def check() -> int:
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        return done.returncode

    assert check() == 0
    Answer.status = 503
    assert check() == 1
    server.shutdown()
    server.server_close()
    assert check() == 1
