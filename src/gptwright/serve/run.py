"""Running the server: refuse an open door, listen, and at the end let running answers finish."""

import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from gptwright.core.control import ControlStore
from gptwright.core.errors import Refused, UserError
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import has_active_key
from gptwright.serve.logs import log_to_stderr

log = logging.getLogger("gptwright.serve")


def check_door(config: ServeConfig, control: ControlStore | None) -> None:
    """Refuse to listen beyond this machine when there is no key that could keep people out.

    Raises:
        Refused: the address is reachable from elsewhere (or a key is required) and there is no active key.
    """
    if config.asks_for_key and (control is None or not has_active_key(control)):
        raise Refused(
            "without an API key, anyone who can reach this address could use the model"
            if not config.is_local
            else "require_key is set, but there is no active API key",
            where=f"[serve] host = {config.host}",
            fix="Run: gptwright keys create --name NAME, or listen on 127.0.0.1",
        )


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, app: FastAPI, on_start: Callable[[str], None] | None, drain_timeout: float
    ) -> None:
        super().__init__(config)
        self._app, self._on_start, self._drain_timeout = app, on_start, drain_timeout
        self._drain_until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_start is not None and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            self._on_start(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end: what runs is finished, the rest gets 503. A second one ends it now."""
        backend = self._app.state.backend
        if backend.draining:
            super().handle_exit(sig, frame)
            return
        backend.draining = True
        self._drain_until = time.monotonic() + self._drain_timeout
        log.info("stopping: %d answers are running", backend.slots.taken)

    async def on_tick(self, counter: int) -> bool:
        """Looked at ten times a second."""
        backend = self._app.state.backend
        if self._drain_until is not None:
            idle = backend.slots.taken == 0 and backend.active == 0
            if idle or time.monotonic() >= self._drain_until:
                self.should_exit = True
        return await super().on_tick(counter)


def serve(
    app: FastAPI,
    config: ServeConfig,
    *,
    control: ControlStore | None = None,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Listen until SIGTERM or Ctrl-C; then finish running answers, for at most ``drain_timeout``.

    Args:
        app: from ``create_app``.
        config: the same as the app's.
        control: the same as the app's.
        on_start: called with the URL once the server listens.

    Raises:
        Refused: see ``check_door``.
        UserError: the address cannot be used.
    """
    check_door(config, control)
    _check_tls(config)
    log_to_stderr(config.log_format)
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        access_log=False,  # ours names routes, never queries
        log_level="warning",
        # Answers are waited for before; this is for the last bytes of what is on its way.
        timeout_graceful_shutdown=2,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(settings, app, on_start, config.drain_timeout)
    _bindable(config)
    previous: dict[int, Any] = {}
    try:
        for stop in (signal.SIGTERM, signal.SIGINT):
            # uvicorn raises the signal again when it is done; a server that was told to stop and did has not failed.
            previous[stop] = signal.signal(stop, lambda *_: None)
        server.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not server.started:
        raise UserError("the server could not start", where=f"{config.host}:{config.port}", fix="See the lines above")


def _check_tls(config: ServeConfig) -> None:
    """Say which of the two files is wrong before the server starts.

    Raises:
        UserError: it cannot be read, or they do not belong together.
    """
    if config.tls_cert is None or config.tls_key is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"the certificate or its key cannot be used: {error.strerror or error}",
            where=f"[serve] tls_cert = {config.tls_cert}, tls_key = {config.tls_key}",
            fix="Both are files in PEM; the key must belong to the certificate",
        ) from error


def _bindable(config: ServeConfig) -> None:
    """Say what is wrong with the address before uvicorn exits the process over it."""
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config.host, config.port))
    except OSError as error:
        raise UserError(
            f"cannot listen: {error.strerror or error}",
            where=f"{config.host}:{config.port}",
            fix="Is another server running? Choose another with --port",
        ) from error
