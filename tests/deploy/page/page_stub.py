"""A stand-in for the service: it serves the page and speaks the HTTP contract with canned answers. No Paddle."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from PIL import Image
from ppmtl_service.answers import encode_mask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ppmtl.ops.masks import Rle, packed

PAGE = Path(__file__).resolve().parents[3] / "deploy/serving/page"
SIZE = (201, 303)  # of the usual image: odd, and not the canvas's shape
# Stricter than the service has to be: what works here works there
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
COLOURS = ((128, 64, 128), (70, 130, 180), (0, 0, 142), (107, 142, 35))
SEG = ("road", "sky", "car", "vegetation")
DET = ("stop", "speed limit", "yield")
CLS = ("sedan", "van", "pickup")


def task(kind: str, names: tuple[str, ...] = ()) -> dict[str, Any]:
    classes = [{"index": i, "id": i + 1, "name": n, "colour": list(COLOURS[i])} for i, n in enumerate(names)]
    return {"type": kind, "classes": classes}


MODEL = {
    "name": "stub",
    "version": "1.0",
    "tasks": {"seg": task("segmentation", SEG), "cls": task("classification", CLS), "det": task("detection", DET)},
    "limits": {"max_bytes": 20_000_000, "max_pixels": 40_000_000, "max_side": 16_384, "formats": ["jpeg", "png"]},
    "tta": True,
    "defaults": {"threshold": 0.5, "size": [448, 448]},
}


def written(path: Path, size: tuple[int, int] = SIZE, **options: Any) -> Path:
    """Writes a soft gradient, so that every pixel differs a little from its neighbours."""
    pixels = np.full((*size, 3), 90, np.uint8)
    pixels[..., 0] = (np.arange(size[0]) * 200 // size[0])[:, None]
    pixels[..., 1] = np.arange(size[1]) * 200 // size[1]
    Image.fromarray(pixels).save(path, **options)
    return path


def mask_of(height: int, width: int) -> np.ndarray:
    """Labels (H, W) uint8: sky above, road below, a car in the middle, a not-labelled corner; every edge odd."""
    labels = np.zeros((height, width), np.uint8)
    labels[: height // 3] = 1
    labels[height // 2 : height * 3 // 4, width // 4 : width // 2] = 2
    labels[-height // 8 :, -width // 8 :] = 255
    return labels


def instance_masks(height: int, width: int) -> list[np.ndarray]:
    """Two objects (H, W) uint8: a ring with a hole, and a block that touches both ends of the run lengths."""
    ring, block = np.zeros((2, height, width), np.uint8)
    ring[height // 4 : height // 2, width // 3 : 2 * width // 3] = 1
    ring[height // 3 : height // 3 + 9, width // 2 : width // 2 + 21] = 0
    block[0, 0] = block[-1, -1] = 1
    block[height // 3 :, width // 2 :] = 1
    return [ring, block]


def instances(height: int, width: int) -> list[dict[str, Any]]:
    """The two objects as the service sends them, and a box without a mask; the service's own code packs them."""
    rows = []
    for index, pixels in enumerate(instance_masks(height, width)):
        y, x = np.nonzero(pixels)
        box = [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]
        mask = {"size": [height, width], "counts": packed(Rle.of(pixels).counts)}
        row = {"bbox": box, "score": 0.9 - 0.2 * index, "class": DET[index], "class_index": index, "category_id": index}
        rows.append(row | {"segmentation": mask})
    rest = {"score": 0.1, "class": DET[2], "class_index": 2, "category_id": 2, "segmentation": None}
    return [*rows, {"bbox": [5.0, 5.0, 30.0, 20.0], **rest}]


def answers(height: int, width: int) -> dict[str, Any]:
    """What a model might find: boxes at tenths of the image's size, and the mask above."""
    found = [((0.6, 0.2, 0.8, 0.5), 0.91, 0), ((0.65, 0.25, 0.7, 0.3), 0.62, 1), ((0.1, 0.7, 0.2, 0.9), 0.33, 2)]
    size = np.array([width, height] * 2)
    boxes = [
        {"bbox": (size * box).tolist(), "score": s, "class": DET[i], "category_id": i, "class_index": i}
        for box, s, i in found
    ]
    top = [
        {"class": n, "score": s, "class_index": i} for i, (n, s) in enumerate(zip(CLS, (0.83, 0.1, 0.07), strict=True))
    ]
    mask = encode_mask(mask_of(height, width), "rle")
    return {
        "seg": {"classes": {}, "mask": mask},
        "cls": {"top": top},
        "det": {"boxes": boxes},
        "words": {"caption": "a red car", "score": 0.7},
        "things": {"instances": instances(height, width)},
        "parts": {"boxes": boxes, "mask": mask},
    }


def refusal(status: int, headers: dict[str, str] | None = None) -> Response:
    error = {"error": {"code": "some_code", "message": "as the server puts it"}, "request_id": "r-7"}
    return JSONResponse(error, status, headers)


class Stub:
    """The server. ``next`` holds answers to give instead; ``asked`` the fields of the predictions that were asked for."""

    def __init__(self) -> None:
        self.reset()
        routes = [
            Route("/", lambda _: FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})),
            Route("/healthz", lambda _: JSONResponse({"status": "alive"})),
            Route("/v1/model", lambda request: self.locked(request) or JSONResponse(self.model)),
            Route("/v1/predict", self.predict, methods=["POST"]),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        self.server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="critical"))
        threading.Thread(target=self.server.run, args=([listening],), daemon=True).start()

    def reset(self) -> None:
        self.next: list[Response] = []
        self.asked: list[dict[str, Any]] = []
        self.key: str | None = None
        self.delay, self.model = 0.0, MODEL

    def locked(self, request: Request) -> Response | None:
        return refusal(401) if self.key not in (None, request.headers.get("x-api-key")) else None

    async def predict(self, request: Request) -> Response:
        form = await request.form()
        image = form["images"]
        data = await image.read()
        self.asked.append({**form, "file": image.filename, "data": data})
        time.sleep(self.delay)
        if refused := self.locked(request) or (self.next.pop(0) if self.next else None):
            return refused
        size = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        everything = answers(*size)
        result = {"file": image.filename, "height": size[0], "width": size[1]}
        result |= {name: everything[name] for name in form["tasks"].split(",")}
        timings = {"decode": 4.2, "queue": 0.4, "predict": 180.0, "total": 185.1}
        return JSONResponse({"model": {}, "results": [result], "timings_ms": timings, "request_id": "r-8"})
