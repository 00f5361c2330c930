"""Downloads from a server on this machine: cached, tried again, checked, and clear about what to do offline."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from ppmtl.weights import download

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; breaks off in the middle as often as ``breaks`` says."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1_200_000] if self.server.breaks else CONTENT)
        self.server.breaks = max(0, self.server.breaks - 1)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("PPMTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.status, served.breaks, served.requests = 200, 0, []
    served.url = f"http://127.0.0.1:{served.server_port}/zoo/model.safetensors"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def test_a_file_is_downloaded_once(server):
    path = download.fetch(f"{server.url}#sha256={DIGEST}")
    assert path.read_bytes() == CONTENT
    assert path.parts[-2:] == ("zoo", "model.safetensors")
    assert download.fetch(server.url) == path
    assert len(server.requests) == 1
    assert {p.name for p in path.parent.iterdir()} == {"model.safetensors", "model.safetensors.lock"}


def test_a_broken_transfer_is_tried_again_and_half_a_file_is_never_kept(server):
    server.breaks = 3
    path = download.fetch(server.url)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 4
    path.unlink()
    server.breaks = 4
    with pytest.raises(ValueError, match="the transfer ended after 1200000 of 3000000 bytes"):
        download.fetch(server.url)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors.lock"]


def test_a_wrong_digest_keeps_nothing(server):
    with pytest.raises(ValueError, match=f"SHA-256 is {DIGEST}, not the one asked for"):
        download.fetch(f"{server.url}#sha256={'0' * 64}")
    path = download.fetch(server.url)
    assert len(server.requests) == 2
    path.write_bytes(b"put there by hand, but the wrong one")
    with pytest.raises(ValueError, match=f"delete {path} to download it again"):
        download.fetch(f"{server.url}#sha256={DIGEST}")
    assert path.exists()


def test_a_malformed_digest_is_noticed_before_downloading(server):
    for fragment in ("sha256=123", "md5=" + "0" * 32, "main"):
        with pytest.raises(ValueError, match="must be sha256=<64 hex digits>"):
            download.fetch(f"{server.url}#{fragment}")
    assert server.requests == []


def test_what_the_server_refuses_is_not_asked_again(server):
    server.status = 404
    with pytest.raises(ValueError, match="404"):
        download.fetch(server.url)
    assert len(server.requests) == 1
    server.status = 503
    with pytest.raises(ValueError, match="503"):
        download.fetch(server.url)
    assert len(server.requests) == 1 + 4


def test_offline_the_message_says_where_to_put_the_file_and_then_it_is_taken(server, tmp_path):
    url = server.url.replace(str(server.server_port), "9")  # the discard port: nobody listens
    with pytest.raises(ValueError, match="cannot be downloaded") as error:
        download.fetch(url)
    place = tmp_path / "cache" / "127.0.0.1_9" / "zoo" / "model.safetensors"
    assert str(place) in str(error.value)
    assert "PPMTL_CACHE" in str(error.value)
    place.write_bytes(CONTENT)
    assert download.fetch(f"{url}#sha256={DIGEST}") == place


def test_the_cache_path_cannot_leave_the_cache(server, tmp_path):
    path = download.fetch(f"http://127.0.0.1:{server.server_port}/../a/%2e%2e/../../w.pth?download=true")
    assert path.is_relative_to(tmp_path / "cache")
    assert path.name.endswith("_w.pth")


def test_two_processes_download_a_file_once(server):
    results = []
    threads = [threading.Thread(target=lambda: results.append(download.fetch(server.url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(server.requests) == 1
