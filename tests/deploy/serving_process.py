"""Real servers in processes of their own, and raw connections to them."""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

FAKES = Path(__file__).with_name("serving_fakes.py")


class Server:
    """A running server: ``url``, ``port``, ``process``; ``log`` collects its lines; ``headers`` are sent along."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.log: list[dict] = []
        self.headers: dict[str, str] = {}
        self._lines: queue.Queue[dict | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            entry = json.loads(line)
            self.log.append(entry)
            self._lines.put(entry)
        self._lines.put(None)

    def wait_for(self, event: str, seconds: float = 60) -> dict:
        """The next log line of that event."""
        limit = time.monotonic() + seconds
        while (entry := self._lines.get(timeout=max(0.01, limit - time.monotonic()))) is not None:
            if entry["event"] == event:
                return entry
        raise AssertionError(f"ended before {event!r}: {self.log} {self.process.stderr.read()}")

    def ready(self) -> "Server":
        """The server, once images are taken."""
        self.url = self.wait_for("listening")["url"]
        self.port = int(self.url.rstrip("/").rsplit(":", 1)[1])
        self.wait_for("ready")
        return self

    def post(self, *images: bytes, timeout: float = 30, **fields: str) -> httpx.Response:
        files = [("images", (f"{i}.png", data)) for i, data in enumerate(images)]
        return httpx.post(self.url + "v1/predict", files=files, data=fields, headers=self.headers, timeout=timeout)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=self.headers, timeout=10)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@contextmanager
def serving(*command: str, **environment: str):
    """A server that is ready; killed at the end if it still runs."""
    server = Server(*command, **environment)
    try:
        yield server.ready()
    finally:
        server.process.kill()
        server.process.wait()


def read_answer(connection: socket.socket) -> tuple[int, dict]:
    """status and JSON of the answer on a raw connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += receive(connection)
    return int(head.split()[1]), json.loads(body)


def receive(connection: socket.socket) -> bytes:
    """what arrived; raises ConnectionError at the end."""
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed without an answer")
    return data
