"""Puts the pages onto the server's application."""

from pathlib import Path

from fastapi import FastAPI, Request

from gptwright.core.errors import UserError, require
from gptwright.studio.page import Site, asset


def mount(app: FastAPI, corpus: Path | None = None) -> None:
    """Serve the pages of an application, for ``create_app(..., mount=mount)``. Once in a process.

    ``/`` begins a conversation, ``/c/ID`` shows one that was kept, ``/compare`` asks two models at once.

    Args:
        app: the server's application; its routes stay in front.
        corpus: folder of the corpus that models are trained from, to say what an answer repeats.

    Raises:
        UserError: NiceGUI is not installed, or pages were mounted before in this process.
    """
    require("nicegui", "studio")
    from nicegui import core, ui

    from gptwright.studio.chat import ChatPage
    from gptwright.studio.compare import ComparePage

    if core.app.config.has_run_config:
        raise UserError("the pages can be served once in a process")
    backend = app.state.backend

    def site(request: Request) -> Site:
        config = backend.config
        secure = config.tls_cert is not None
        return Site(own_url(request, secure), backend.control, config.asks_for_key, corpus, secure)

    @ui.page("/")  # type: ignore[untyped-decorator]
    async def chat(request: Request) -> None:
        await ChatPage(site(request)).build()

    @ui.page("/c/{conversation}")  # type: ignore[untyped-decorator]
    async def kept(request: Request, conversation: str) -> None:
        await ChatPage(site(request), conversation).build()

    @ui.page("/compare", title="gptwright: compare")  # type: ignore[untyped-decorator]
    async def compare(request: Request) -> None:
        await ComparePage(site(request)).build()

    # Without Tailwind: it would compile styles in the browser; ours are one small file.
    ui.run_with(
        app,
        title="gptwright",
        favicon=asset("mark.svg").replace("currentColor", "#0d6a5c"),
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=60.0,  # a phone that slept for a moment finds its conversation again
    )


def own_url(request: Request, secure: bool = False) -> str:
    """Where this very server listens, as seen on this machine: the socket that the page's request came in by."""
    host, port = request.scope.get("server") or ("127.0.0.1", 8000)
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
