"""A stand-in for the service: it serves the page and speaks the HTTP contract with canned answers. No Paddle."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PAGE = Path(__file__).resolve().parents[3] / "deploy/serving/page"
# Stricter than the service has to be: what works here works there
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
COLOURS = ((128, 64, 128), (70, 130, 180), (0, 0, 142), (107, 142, 35))
SEG = ("road", "sky", "car", "vegetation")
DET = ("stop", "speed limit", "yield")
CLS = ("sedan", "van", "pickup")


def classes(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"index": i, "id": i + 1, "name": n, "colour": list(COLOURS[i])} for i, n in enumerate(names)]


MODEL = {
    "name": "stub",
    "version": "1.0",
    "tasks": {
        "seg": {"type": "segmentation", "classes": classes(SEG)},
        "cls": {"type": "classification", "classes": classes(CLS)},
        "det": {"type": "detection", "classes": classes(DET)},
    },
    "limits": {"max_images": 4, "max_bytes": 20_000_000, "max_pixels": 40_000_000, "formats": ["jpeg", "png"]},
    "tta": True,
    "defaults": {"threshold": 0.5, "size": [448, 448]},
}


def mask_of(height: int, width: int) -> np.ndarray:
    """Returns labels (H, W) uint8: sky above, road below, a car in the middle, a not-labelled corner; every edge odd."""
    labels = np.zeros((height, width), np.uint8)
    labels[: height // 3] = 1
    labels[height // 2 : height * 3 // 4, width // 4 : width // 2] = 2
    labels[-height // 8 :, -width // 8 :] = 255
    return labels


def runs(labels: np.ndarray) -> list[int]:
    """Returns [class, length, class, length, ...] row by row, as the contract's "rle" has them."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    return np.stack([flat[starts], np.diff(np.r_[starts, flat.size])], axis=1).ravel().tolist()


def result_of(name: str, data: bytes, tasks: list[str]) -> dict[str, Any]:
    """Returns what a model might find: boxes at tenths of the picture's size, and the mask above."""
    height, width = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    labels = mask_of(height, width)
    shares = {n: float((labels == i).mean()) for i, n in enumerate(SEG) if (labels == i).any()}
    boxes = [((0.6, 0.2, 0.8, 0.5), 0.91, 0), ((0.65, 0.25, 0.7, 0.3), 0.62, 1), ((0.1, 0.7, 0.2, 0.9), 0.33, 2)]
    found = {
        "seg": {"classes": shares, "mask": {"encoding": "rle", "size": [height, width], "counts": runs(labels)}},
        "det": {
            "boxes": [
                {
                    "bbox": [x1 * width, y1 * height, x2 * width, y2 * height],
                    "score": score,
                    "class": DET[index],
                    "category_id": index + 1,
                    "class_index": index,
                }
                for (x1, y1, x2, y2), score, index in boxes
            ]
        },
        "cls": {
            "top": [
                {"class": n, "score": s, "class_index": i}
                for i, (n, s) in enumerate(zip(CLS, (0.83, 0.1, 0.07), strict=True))
            ]
        },
    }
    return {"file": name, "height": height, "width": width, **{task: found[task] for task in tasks}}


@dataclass
class Refusal:
    """An answer to give instead of a prediction."""

    status: int
    code: str = "some_code"
    message: str = "as the server puts it"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the contract's error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of browsers that hang up: tests cancel requests on purpose."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Stub:
    """The server. ``next`` holds refusals for the coming predictions; ``asked`` the fields of those that came."""

    def __init__(
        self, result: Callable[[str, bytes, list[str]], dict[str, Any]] = result_of, model: Any = None
    ) -> None:
        self.result, self.model = result, model or MODEL
        self.next: list[Refusal] = []
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.key: str | None = None
        self.delay = 0.0
        self.hangs_up: tuple[str, ...] = ()  # methods that get no answer at all
        self.server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def reset(self) -> None:
        self.next, self.asked, self.paths, self.key, self.delay, self.hangs_up = [], [], [], None, 0.0, ()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

        def answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, refusal: Refusal) -> None:
            error = {"error": {"code": refusal.code, "message": refusal.message}, "request_id": "r-7"}
            body = json.dumps(error).encode() if refusal.body is None else refusal.body
            self.answer(refusal.status, body, "application/json", refusal.headers)

        def parse_request(self) -> bool:
            known = super().parse_request()
            if known and self.command in stub.hangs_up:
                self.close_connection = True
                return False
            return known

        def locked(self) -> bool:
            return stub.key is not None and self.headers.get("X-API-Key") != stub.key

        def do_GET(self) -> None:
            stub.paths.append(self.path)
            if self.path == "/healthz":
                return self.answer(200, b'{"status": "alive"}', "application/json")
            if self.path == "/v1/model":
                if self.locked():
                    return self.refuse(Refusal(401, "key"))
                return self.answer(200, json.dumps(stub.model).encode(), "application/json")
            file = PAGE / ("index.html" if self.path == "/" else self.path.removeprefix("/page/"))
            if file.is_file() and (self.path == "/" or self.path.startswith("/page/")):
                return self.answer(200, file.read_bytes(), TYPES[file.suffix])
            return self.answer(404, b"", "text/plain")

        def do_POST(self) -> None:
            stub.paths.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(stub.delay)
            if self.locked():
                return self.refuse(Refusal(401, "key"))
            message = message_from_bytes(
                f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body, policy=HTTP
            )
            parts = {p.get_param("name", header="content-disposition"): p for p in message.iter_parts()}
            image = parts.pop("images")
            fields = {name: part.get_payload(decode=True).decode() for name, part in parts.items()}
            data = image.get_payload(decode=True)
            stub.asked.append({**fields, "file": image.get_filename(), "data": data})
            if stub.next:
                return self.refuse(stub.next.pop(0))
            result = stub.result(image.get_filename(), data, fields["tasks"].split(","))
            timings = {"decode": 4.2, "queue": 0.4, "predict": 180.0, "total": 185.1}
            document = {"model": {"name": "stub", "version": "1.0"}, "results": [result], "timings_ms": timings}
            return self.answer(200, json.dumps({**document, "request_id": "r-8"}).encode(), "application/json")

    return Handler
