"""The real server in a process of its own, where an in-process test would not prove it."""

import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ppmtl_service.server import bind
from serving_client import RED
from serving_fakes import wait_until
from serving_process import FAKES, Server, read_answer, serving

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.fixture(scope="module")
def server():
    flags = (
        "--slow",
        0.1,
        "--timeout_s",
        1.5,
        "--queue_size",
        3,
        "--max_images",
        3,
        "--workers",
        1,
        "--max_bytes",
        200_000,
    )
    with serving(FAKES, *flags) as result:
        yield result


@pytest.fixture
def connection(server):
    """A raw connection; whatever it does, the service lives on."""
    with server.connect() as result:
        yield result
    assert server.post(RED).status_code == 200


def test_a_client_that_stops_sending_is_told_and_keeps_nobody_waiting(server, connection):
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + PART + RED[:20])
    assert server.post(RED).status_code == 200
    status, answer = read_answer(connection)
    assert (status, answer["error"]["code"]) == (408, "upload_too_slow")


def test_a_client_that_leaves_during_its_upload_is_no_error(server):
    with server.connect() as leaving:
        leaving.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + PART + RED[:20])
        wait_until(lambda: "ppmtl_in_flight_requests 2.0" in server.get("metrics").text)
    wait_until(lambda: 'status="499"' in server.get("metrics").text)
    assert not [entry for entry in server.log if entry["event"] == "error"]


def test_a_body_without_a_length_is_cut_off_where_the_limit_is(connection):
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(PART), PART))
    sent = 0
    while not select.select([connection], [], [], 0)[0] and sent < 500:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        sent += 1
        time.sleep(0.01)
    status, answer = read_answer(connection)
    assert (status, answer["error"]["code"]) == (413, "too_many_bytes")
    assert sent < 100  # the limit is three chunks


@pytest.mark.parametrize(
    "header", [b"Content-Length: 99999999999\r\n", b"Content-Length: 99999999\r\nExpect: 100-continue\r\n"]
)
def test_a_declared_length_over_the_limit_is_refused_before_anything_is_sent(connection, header):
    connection.sendall(HEAD + header + b"\r\n")
    status, answer = read_answer(connection)
    assert (status, answer["error"]["code"]) == (413, "too_many_bytes")


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
