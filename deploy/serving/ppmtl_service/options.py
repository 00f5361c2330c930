"""The limits of the service: every number that protects it. Each is a flag of ``serve.py`` with the help text here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _limit(default: float, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Options:
    """Limits and speeds; ``api_key`` None = nobody is asked."""

    max_bytes: int = _limit(32 * 2**20, "bytes of one request")
    max_images: int = _limit(16, "images per request")
    # About 20 bytes of memory per pixel
    max_pixels: int = _limit(16_000_000, "pixels of one image, and of all that are worked on at one moment")
    max_side: int = _limit(16_384, "longer side of one image in pixels")
    queue_size: int = _limit(64, "images admitted at once; beyond it 429")
    timeout_s: float = _limit(30.0, "seconds per request, upload included; beyond it 408 or 504")
    max_batch: int = _limit(4, "images that the network sees at once; 1 = one at a time")
    max_delay_ms: float = _limit(2.0, "how long an image waits for others to share its run")
    workers: int = _limit(6, "threads that decode, resize and encode, each one image at a time")
    api_key: bytes | None = None

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_images", "max_pixels", "max_side", "queue_size", "max_batch", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1, got {getattr(self, name)}")
        if self.timeout_s <= 0 or self.max_delay_ms < 0:
            given = f"{self.timeout_s} and {self.max_delay_ms}"
            raise ValueError(f"--timeout_s must be above 0 and --max_delay_ms at least 0, got {given}")
        if self.max_images > self.queue_size:
            given = f"--max_images {self.max_images} is above --queue_size {self.queue_size}"
            raise ValueError(f"{given}: such a request could never be admitted; raise --queue_size")
        if self.api_key == b"":
            raise ValueError("the API key is empty; put one into the file or variable, or name neither")

    @property
    def max_pixels_tta(self) -> int:
        """Pixels of one image with test-time augmentation: averaging label maps costs 16 bytes per pixel and class."""
        return max(1, self.max_pixels // 4)
