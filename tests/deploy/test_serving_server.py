"""The real server in a process of its own, where an in-process test would not prove it."""

import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ppmtl_service.server import bind
from serving_fakes import encoded, image, wait_until
from serving_process import FAKES, Server, read_answer, serving

RED = encoded(image())
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.fixture(scope="module")
def server():
    with serving(FAKES, "--slow", 0.1, "--timeout_s", 1.5, "--queue_size", 3, "--max_images", 3, "--workers", 1,
                 "--max_bytes", 200_000) as result:  # fmt: skip
        yield result


def still_works(server: Server) -> None:
    assert server.post(RED).status_code == 200
    assert server.get("healthz").status_code == 200


def test_a_client_that_stops_sending_is_told_and_keeps_nobody_waiting(server):
    with server.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + PART + RED[:20])
        still_works(server)
        status, answer = read_answer(slow)
    assert (status, answer["error"]["code"]) == (408, "upload_too_slow")


def test_a_body_without_a_length_is_cut_off_where_the_limit_is(server):
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with server.connect() as endless:
        endless.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(PART), PART))
        sent = 0
        while not select.select([endless], [], [], 0)[0] and sent < 500:
            endless.sendall(chunk)
            sent += 1
            time.sleep(0.01)
        status, answer = read_answer(endless)
    assert (status, answer["error"]["code"]) == (413, "too_many_bytes")
    assert sent < 100  # the limit is three chunks
    still_works(server)


def test_a_declared_length_over_the_limit_is_refused_before_anything_is_sent(server):
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        status, answer = read_answer(connection)
    assert (status, answer["error"]["code"]) == (413, "too_many_bytes")


def test_a_client_that_waits_for_continue_is_refused_without_sending_its_body(server):
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert read_answer(connection)[0] == 413


def test_more_clients_than_places_get_429_at_once_and_the_others_their_answer(server):
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: server.post(RED), range(12)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)
    still_works(server)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"\0" * 1000,
        b"POST /v1/predict HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    ],
)
def test_what_is_no_http_harms_nobody(server, garbage):
    with server.connect() as connection:
        try:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1000)[:12] in (b"HTTP/1.1 400", b"")
        except ConnectionError:
            pass  # closed on us, as it should be
    still_works(server)


@pytest.mark.parametrize(
    "path", ["/page/../serve.py", "/page/%2e%2e/serve.py", "/page/..%5cserve.py", "//etc/passwd", "/page//etc/passwd"]
)
def test_no_path_leads_out_of_the_page(server, path):
    with server.connect() as connection:  # a client library would tidy the path up first
        connection.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        assert read_answer(connection)[0] == 404


def test_on_sigterm_running_requests_finish_and_it_ends_with_0():
    with serving(FAKES, "--slow", 2) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.post, RED)
        wait_until(lambda: "ppmtl_queue_depth 1.0" in server.get("metrics").text)
        server.process.send_signal(signal.SIGTERM)
        assert running.result().status_code == 200
        assert server.process.wait(10) == 0
        server.wait_for("stopped")
        with pytest.raises(ConnectionError):
            server.connect()


def test_a_model_that_cannot_be_opened_ends_the_server_with_the_reason():
    server = Server(FAKES, "--broken_start")
    assert server.process.wait(30) == 1
    assert "the model fake cannot be opened: the graph is damaged" in server.process.stderr.read()


def test_an_address_that_cannot_be_had_is_an_error_that_names_it():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}: .*in use.*; .*--port"):
            bind("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"cannot listen on no\.such\.host\.invalid port 1"):
        bind("no.such.host.invalid", 1)
