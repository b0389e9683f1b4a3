"""Puts the pages onto the server's application."""

from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request

from gptwright.core.errors import UserError, require


def mount(app: FastAPI) -> None:
    """Serve the chat page at ``/`` of an application, for ``create_app(..., mount=mount)``. Once in a process.

    Args:
        app: the server's application; its routes stay in front.

    Raises:
        UserError: NiceGUI is not installed, or pages were mounted before in this process.
    """
    require("nicegui", "studio")
    from nicegui import core, ui

    from gptwright.studio.chat import ChatPage

    if core.app.config.has_run_config:
        raise UserError("the pages can be served once in a process")

    @ui.page("/")  # type: ignore[untyped-decorator]
    async def chat(request: Request) -> None:
        await ChatPage(own_url(request)).build()

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


def own_url(request: Request) -> str:
    """Where this very server listens, as seen on this machine: the socket that the page's request came in by."""
    host, port = request.scope.get("server") or ("127.0.0.1", 8000)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def asset(name: str) -> str:
    """A text file that the package ships."""
    folder = resources.files("gptwright.studio")
    return Path(str(folder)).joinpath("assets", name).read_text(encoding="utf-8")
