"""What /metrics tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """The numbers of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        labels = ["route", "method", "status"]
        self.requests = Counter("ppmtl_requests", "Answered requests.", labels, registry=own)
        self.request_seconds = Histogram(
            "ppmtl_request_seconds", "From first byte to answer.", ["route"], buckets=_SECONDS, registry=own
        )
        stages = "Per image: decode, queue, predict, encode. Per request: upload."
        self.stage_seconds = Histogram("ppmtl_stage_seconds", stages, ["stage"], buckets=_SECONDS, registry=own)
        self.images = Counter("ppmtl_images", "Images answered.", registry=own)
        self.batch_size = Histogram("ppmtl_batch_size", "Images per network run.", buckets=_SIZES, registry=own)
        self.in_flight = Gauge("ppmtl_in_flight_requests", "Requests being answered.", registry=own)
        self.queue_depth = Gauge("ppmtl_queue_depth", "Images admitted, waiting or running.", registry=own)
        self.ready = Gauge("ppmtl_ready", "1 while /readyz says yes.", registry=own)
        ProcessCollector(registry=own)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one request."""
        # A method is whatever the client writes; unknown ones share a label so that nobody can fill the memory.
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)
