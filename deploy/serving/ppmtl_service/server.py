"""uvicorn with a socket bound first and an orderly end."""

from __future__ import annotations

import logging
import signal
import socket
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ppmtl_service.app import create_app
from ppmtl_service.logs import log, set_up
from ppmtl_service.model import Model
from ppmtl_service.options import Options
from ppmtl_service.service import Service


def serve(model: Model, options: Options, host: str, port: int) -> None:
    """Serves ``model`` until a signal asks to stop; logs to the standard output.

    Raises:
        ValueError: if the address cannot be had or the model cannot be opened.
    """
    set_up()
    service = Service(model, options)
    with bind(host, port) as listening:
        name, number = listening.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        log("listening", url=f"http://{shown}:{number}/", model=model.name, key_needed=options.api_key is not None)
        DrainingServer(create_app(service), service).run([listening])
    if service.failure is not None:
        raise ValueError(f"the model {model.name} cannot be opened: {service.failure}") from service.failure
    log("stopped")


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address; port 0 takes a free one.

    Raises:
        ValueError: if the address is taken, unknown or not permitted; the message says which and how to mend it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host} port {port}: {error.strerror}; stop what uses it, or choose another --host or --port"
        ) from error
    return bound


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT the service refuses new pictures, finishes its requests, then ends with exit code 0.

    Until then it goes on listening, so /readyz can say 503. A second signal ends it at once.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=5,  # only answers that are still being sent; the work is done by then
            )
        )
        self._service, self._drained_since, self._opening = service, 0.0, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begins to drain. uvicorn's own would end the process by the same signal after a clean shutdown: exit code 143."""
        if self._service.state == "draining":
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        self._drained_since = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Returns whether it is time to end; called ten times a second."""
        service = self._service
        if self._opening:
            # Paddle puts its own handlers in the place of these when it is imported, which is while the model is opened.
            for number in uvicorn.server.HANDLED_SIGNALS:
                signal.signal(number, self.handle_exit)
            self._opening = service.state == "loading"
        if service.state == "failed":
            self.should_exit = True
        if service.state == "draining" and not self.should_exit:
            waited = time.monotonic() - self._drained_since
            if service.in_flight == 0 and waited >= service.options.drain_s:
                log("drained", seconds=round(waited, 2))
                self.should_exit = True
            elif waited > service.options.timeout_s + service.options.drain_s:
                log("drain_gave_up", logging.WARNING, requests=service.in_flight)
                self.should_exit = True
        return await super().on_tick(counter)
