"""Downloads from a server on this machine: cached, resumed, checked, and clear about what to do offline."""

import hashlib
import http.server
import re
import threading

import numpy as np
import pytest

from ppmtl.weights import download

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; knows ranges; breaks off after ``break_after`` bytes as often as ``breaks`` says."""

    def do_GET(self):
        server = self.server
        server.requests.append({key.lower(): value for key, value in self.headers.items()} | {"path": self.path})
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(found[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        end = len(server.content)
        if server.breaks:
            server.breaks -= 1
            end = start + server.break_after
        self.wfile.write(server.content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("PPMTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.content, served.etag, served.ranges, served.status = CONTENT, '"v1"', True, 200
    served.breaks, served.break_after, served.requests = 0, 1_200_000, []
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


def test_a_broken_transfer_goes_on_where_it_stopped(server):
    server.breaks = 2
    assert download.fetch(f"{server.url}#sha256={DIGEST}").read_bytes() == CONTENT
    assert [r.get("range") for r in server.requests] == [None, "bytes=1200000-", "bytes=2400000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, monkeypatch):
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.breaks = 1
    with pytest.raises(ValueError, match="1200000 bytes are kept and the next try continues there"):
        download.fetch(server.url)
    assert download.fetch(server.url).read_bytes() == CONTENT
    assert server.requests[1]["range"] == "bytes=1200000-"


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_part(server, monkeypatch):
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.breaks = 1
    with pytest.raises(ValueError, match="cannot be downloaded"):
        download.fetch(server.url)
    server.content, server.etag = CONTENT[::-1], '"v2"'
    assert download.fetch(server.url).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": ""}, {"etag": 'W/"v1"'}], ids=str)
def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(server, change):
    for name, value in change.items():
        setattr(server, name, value)
    server.breaks = 1
    assert download.fetch(server.url).read_bytes() == CONTENT
    if "etag" in change:  # nothing, or nothing exact, tells the versions apart: glueing would be a guess
        assert [r.get("range") for r in server.requests] == [None, None]


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
