"""A model made by hand for the service's tests; run as a script it is served by the real server.

python tests/deploy/serving_fakes.py --slow 0.5 --queue_size 2
"""

import argparse
import io
import signal
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "serving")]

from ppmtl_service.model import Model  # noqa: E402
from ppmtl_service.options import Options  # noqa: E402

from ppmtl.structures import ClassList  # noqa: E402
from ppmtl.tasks.classification import Classification  # noqa: E402
from ppmtl.tasks.detection import Detection  # noqa: E402
from ppmtl.tasks.segmentation import Segmentation  # noqa: E402
from ppmtl.tasks.views import TestTimeAugmentation  # noqa: E402

TTA = TestTimeAugmentation(scales=(1.0, 2.0), flip=True)
TASKS = {
    "seg": Segmentation("seg", ClassList(("red", "green", "blue")), tta=TTA),
    "cls": Classification("cls", ClassList(("red", "green", "blue")), tta=TTA),
    "det": Detection("det", ClassList(("stop", "go"), (3, 7)), tta=TTA),
}


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).astype(np.float32)


class FakeNetwork:
    """Answers by each image's own pixels, so that a result given to the wrong image shows; a clear ``gate`` holds it."""

    def __init__(self, slow: float = 0.0) -> None:
        self.runs: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
        self.slow, self.broken = slow, False
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images, tasks):
        self.gate.wait(20)
        self.runs.append((images.shape, tasks))
        time.sleep(self.slow)
        if self.broken:
            raise RuntimeError("the network broke")
        (count, h, w), x = images.shape[:3], images.astype(np.float32) / 32
        everything = {
            "seg": {"probs": softmax(x.transpose(0, 3, 1, 2), 1)},
            "cls": {"probs": softmax(x.mean(axis=(1, 2)), 1)},
            "det": {
                "boxes": np.tile(np.array([[0, 0, w / 2, h / 2], [w / 2, h / 2, w, h]], np.float32), (count, 1, 1)),
                "scores": np.stack([[[m, 0], [0, 0.3]] for m in x.mean(axis=(1, 2, 3)) / 8]).astype(np.float32),
            },
        }
        return {name: everything[name] for name in tasks}


def fake_model(network: FakeNetwork, **changes) -> Model:
    usual = {"tasks": TASKS, "open_backend": lambda: network, "shared_size": (32, 48)}
    return Model("fake", "1", **(usual | changes))


def wait_until(condition, seconds: float = 15) -> None:
    """Returns once ``condition()`` is true; a test that waits in vain fails instead of hanging."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)


def image(height: int = 60, width: int = 80, colour=(200, 30, 30)) -> np.ndarray:
    """A plain image whose lower right quarter is blue."""
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[height // 2 :, width // 2 :] = (10, 10, 220)
    return pixels


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def main() -> None:
    from ppmtl_service.server import serve

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as serve.py does
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--broken_start", action="store_true")
    for field in fields(Options)[:-1]:
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    slow, broken = arguments.pop("slow"), arguments.pop("broken_start")

    def fail():
        raise ValueError("the graph is damaged")

    serve(
        fake_model(FakeNetwork(slow), **({"open_backend": fail} if broken else {})),
        Options(**arguments),
        "127.0.0.1",
        0,
    )


if __name__ == "__main__":
    main()
