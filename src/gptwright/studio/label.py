"""The labelling page: a document and four keys. Labels are kept at once, in the same store as the terminal's.

It shows the corpus, so it is served by itself, on this machine, under an address that nobody can guess.
"""

import hmac
import secrets
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException
from nicegui import events, ui

from gptwright.core.errors import UserError
from gptwright.corpus.quality import labels
from gptwright.corpus.quality.desk import Desk
from gptwright.studio.page import asset

SHOWN_CHARS = 8_000


class LabelPage:
    """One browser tab's sitting.

    Args:
        desk: what is labelled.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.values = {desk.positive[0]: desk.positive, desk.negative[0]: desk.negative, "s": labels.SKIP}

    def build(self) -> None:
        """Make the page."""
        ui.add_head_html(f"<style>{asset('chat.css')}\n{asset('label.css')}</style>")
        ui.dark_mode(None)
        with ui.element("header").classes("gw-bar").props("role=banner"):
            with ui.element("div").classes("gw-brand"):
                ui.html(asset("mark.svg"), sanitize=False).props("aria-hidden=true").style("display: flex")
                ui.html(f"Label: {self.desk.task}", tag="h1").style("font: inherit; margin: 0")
            ui.element("div").classes("gw-space")
            self.count = ui.label().classes("gl-count").props("role=status aria-live=polite")
            with ui.element("div").classes("gl-bar").props("aria-hidden=true"):
                self.bar = ui.element("div")
        with ui.element("div").classes("gw-main").props("id=gw-main"), ui.element("div").classes("gw-thread"):
            self.where = ui.label().classes("gl-where")
            self.text = ui.label().classes("gl-text").props('role=article tabindex=0 aria-label="Document"')
            self.more = ui.label().classes("gl-more")
            self.done = ui.label().classes("gl-done").props("role=status")
        with ui.element("footer").classes("gw-foot").props("role=contentinfo"), ui.element("div").classes("gl-keys"):
            for key, value in self.values.items():
                self._button(value.capitalize(), key)
            self._button("Undo", "u")
        ui.keyboard(on_key=self._pressed, repeating=False)
        self._show()

    def _button(self, name: str, key: str) -> None:
        with ui.button(name, on_click=lambda: self.act(key), color=None).props(f"flat no-caps aria-keyshortcuts={key}"):
            ui.html(key, tag="kbd").props("aria-hidden=true")

    def _pressed(self, event: events.KeyEventArguments) -> None:
        plain = not (event.modifiers.ctrl or event.modifiers.alt or event.modifiers.meta)
        if event.action.keydown and plain:
            self.act(str(event.key.name).lower())

    def act(self, key: str) -> None:
        """What a key or a button does; other keys do nothing."""
        if key == "u":
            if not self.desk.undo():
                ui.notify("Nothing of this sitting to undo", timeout=1500)
        elif key in self.values and not self._finished():
            self.desk.mark(self.values[key])
        else:
            return
        self._show()

    def _finished(self) -> bool:
        return self.desk.current is None or sum(self.desk.counts()) >= self.desk.target

    def _show(self) -> None:
        sheet, finished = self.desk.current, self._finished()
        self.count.set_text(self.desk.progress())
        self.bar.style(f"width: {min(1.0, sum(self.desk.counts()) / max(self.desk.target, 1)):.0%}")
        for part in (self.where, self.text, self.more):
            part.set_visibility(not finished)
        self.done.set_visibility(finished)
        if finished or sheet is None:
            enough = sum(self.desk.counts()) >= self.desk.target
            self.done.set_text("Done. Thank you." if enough else "There is no other document to label.")
            return
        self.where.set_text(f"{sheet.source}/{sheet.locator}")
        self.text.set_text(sheet.text[:SHOWN_CHARS])
        left = len(sheet.text) - SHOWN_CHARS
        self.more.set_text(f"{left:,} more characters are not shown." if left > 0 else "")
        ui.run_javascript("document.getElementById('gw-main').scrollTop = 0")


def label_app(open_desk: Callable[[], Desk], token: str) -> FastAPI:
    """An application with the labelling page at ``/label/TOKEN`` and nothing else. Once in a process.

    Args:
        open_desk: begins a sitting, for each tab.
        token: part of the address; without it there is no page.

    Raises:
        UserError: pages were mounted before in this process.
    """
    from nicegui import core

    if core.app.config.has_run_config:
        raise UserError("the pages can be served once in a process")
    app = FastAPI(openapi_url=None)

    @ui.page("/label/{given}")  # type: ignore[untyped-decorator]
    def label(given: str) -> None:
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(404)
        LabelPage(open_desk()).build()

    ui.run_with(
        app, title="gptwright: label", favicon=asset("mark.svg").replace("currentColor", "#0d6a5c"), dark=None,
        language="en-US", tailwind=False, show_welcome_message=False, reconnect_timeout=60.0,
    )  # fmt: skip
    return app


def serve_label(
    open_desk: Callable[[], Desk], *, port: int = 0, on_start: Callable[[str], Any] = lambda url: None
) -> None:
    """Serve the labelling page on this machine until Ctrl-C.

    Args:
        open_desk: begins a sitting.
        port: where; 0 takes a free one.
        on_start: gets the page's address when it can be opened.

    Raises:
        UserError: the port is taken.
    """
    import socket

    import uvicorn

    token = secrets.token_urlsafe(16)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise UserError(f"port {port} cannot be used: {error.strerror}", fix="Choose another: --port N") from error
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/label/{token}"
    app = label_app(open_desk, token)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_start(url)

    Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
