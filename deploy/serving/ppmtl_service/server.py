"""uvicorn with a socket bound first."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn

from ppmtl_service.app import create_app
from ppmtl_service.logs import log, set_up
from ppmtl_service.model import Model
from ppmtl_service.options import Options
from ppmtl_service.service import Service


def serve(model: Model, options: Options, host: str, port: int) -> None:
    """Serves ``model`` until a signal asks to stop; running requests are finished then. Logs to the standard output.

    Raises:
        ValueError: if the address cannot be had or the model cannot be opened.
    """
    set_up()
    service = Service(model, options)
    with bind(host, port) as listening:
        name, number = listening.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        log("listening", url=f"http://{shown}:{number}/", model=model.name, key_needed=options.api_key is not None)
        try:
            _Server(service).run([listening])
        finally:  # uvicorn raises the signal that ended it once more
            log("stopped")
    if service.failure is not None:
        raise ValueError(f"the model {model.name} cannot be opened: {service.failure}") from service.failure


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on the address, port 0 takes a free one; raises ValueError if it cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host} port {port}: {error.strerror}; stop what uses it, or choose another --host or --port"
        ) from error


class _Server(uvicorn.Server):
    """Ends when the model cannot be opened, and keeps its signal handlers while it is."""

    def __init__(self, service: Service) -> None:
        grace = round(service.options.timeout_s) + 5  # seconds; 5 to send the last answers
        own: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "proxy_headers": False}
        super().__init__(uvicorn.Config(create_app(service), ws="none", timeout_graceful_shutdown=grace, **own))
        self._service, self._opening = service, True

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end; called ten times a second."""
        if self._opening:
            # Paddle puts its own handlers in the place of these when it is imported, which is while the model is opened.
            for number in uvicorn.server.HANDLED_SIGNALS:
                signal.signal(number, self.handle_exit)
            self._opening = self._service.state == "loading"
            self.should_exit |= self._service.state == "failed"
        return await super().on_tick(counter)
