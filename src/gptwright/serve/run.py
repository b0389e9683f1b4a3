"""Running the server: refuse an open door, listen, and at the end let running answers finish."""

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from gptwright.core.control import ControlStore
from gptwright.core.errors import Refused, UserError
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import has_active_key


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
    def __init__(self, config: uvicorn.Config, app: FastAPI, on_start: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._app, self._on_start = app, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_start is not None and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_start(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.backend.draining = True  # /ready says no from now on; running answers go on
        super().handle_exit(sig, frame)


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
    _log_to_stderr()
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        access_log=False,  # ours names routes, never queries
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(config.drain_timeout)),
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(settings, app, on_start)
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


def _log_to_stderr() -> None:
    """One line for each request to the API, unless whoever runs us has set up logging already."""
    log = logging.getLogger("gptwright.serve")
    if log.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


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
