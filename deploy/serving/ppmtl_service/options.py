"""The limits of the service: every number that protects it, with its default and unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Limits and speeds. Every field is a flag of ``serve.py``.

    Attributes:
        max_bytes: of one request's body.
        max_images: pictures in one request.
        max_pixels: of one picture, and of all pictures that are worked on at one moment, which bounds the memory:
            about 20 bytes per pixel.
        max_side: longer side of one picture, in pixels.
        queue_size: pictures admitted at once, waiting or running; beyond it requests are refused with 429.
        timeout_s: for a whole request, upload included.
        max_batch: pictures that the network sees at once.
        max_delay_ms: how long a picture may wait for others to share its run. Nobody waits when nobody else is coming.
        workers: threads that decode, resize and encode, each one picture at a time.
        drain_s: after SIGTERM, how long the service at least goes on listening with /readyz at 503, so that load
            balancers notice. Running requests are waited for in any case, up to ``timeout_s``.
        api_key: asked of every request to /v1 and /metrics; None = nobody is asked.
    """

    max_bytes: int = 32 * 2**20
    max_images: int = 16
    max_pixels: int = 16_000_000
    max_side: int = 16_384
    queue_size: int = 64
    timeout_s: float = 30.0
    max_batch: int = 4
    max_delay_ms: float = 2.0
    workers: int = 6
    drain_s: float = 0.0
    api_key: bytes | None = None

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_images", "max_pixels", "max_side", "queue_size", "max_batch", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1, got {getattr(self, name)}")
        if self.timeout_s <= 0:
            raise ValueError(f"--timeout_s: must be above 0 seconds, got {self.timeout_s}")
        if self.max_delay_ms < 0 or self.drain_s < 0:
            raise ValueError(
                f"--max_delay_ms and --drain_s: must be at least 0, got {self.max_delay_ms} and {self.drain_s}"
            )
        if self.max_images > self.queue_size:
            raise ValueError(
                f"--max_images {self.max_images} is above --queue_size {self.queue_size}: such a request could never be "
                "admitted; raise --queue_size"
            )
        if self.api_key == b"":
            raise ValueError("the API key is empty; put one into the file or variable, or name neither")

    @property
    def max_pixels_tta(self) -> int:
        """Returns the pixels of one picture with test-time augmentation; averaging label maps costs 16 bytes per pixel and
        class."""
        return max(1, self.max_pixels // 4)

    @property
    def upload_bytes(self) -> int:
        """Returns how many bytes of unfinished uploads are held at most; eight of the largest requests."""
        return 8 * self.max_bytes
