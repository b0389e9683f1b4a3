"""What the chat and the comparison share: the frame, the models, the key, the colours, the line to write in."""

import asyncio

from nicegui import events, ui

from gptwright.serve.keys import find_key
from gptwright.studio.api import Api, ApiFailure, Model
from gptwright.studio.book import Book
from gptwright.studio.dialogs import choice, dialog
from gptwright.studio.judging import Judge
from gptwright.studio.page import Site, head
from gptwright.studio.settings import Settings
from gptwright.studio.shortcuts import show_shortcuts

_GONE_S = 4.0
"""After this long without its browser, an answer is stopped."""


class Shell:
    """One browser tab.

    Args:
        site: the server.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.api = Api(site.url, verify=not site.secure)
        self.judge = Judge(self.api)
        self.settings = Settings()
        self.models: dict[str, Model] = {}

    async def build(self) -> None:
        """Make the page, then ask the server for its models."""
        ui.add_head_html(head())
        self.dark = ui.dark_mode(None)
        self.frame()
        self.client = ui.context.client
        self.client.on_disconnect(self._left)
        await self.client.connected()
        saved = await ui.run_javascript("gw.saved()", timeout=5.0) or {}
        if saved.get("theme") in ("dark", "light"):
            self.dark.value = saved["theme"] == "dark"
        self.judge.remember(saved.get("consent"))
        self.settings = Settings.of(saved.get("settings") if isinstance(saved.get("settings"), dict) else None)
        await self._load_models()

    # What a page of its own kind does

    def frame(self) -> None:
        """Make the parts of the page."""
        raise NotImplementedError

    async def ready(self, models: list[Model]) -> None:
        """The models are known, and the key is good."""
        raise NotImplementedError

    def ask(self, text: str) -> None:
        """A question was written."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop what is being answered; what is there stays. The closed connection stops the model."""
        raise NotImplementedError

    # What they share

    def composer(self) -> None:
        """The line to write in, the notice below it, and what is only heard."""
        self._status = ui.label().classes("gw-hidden").props("role=status aria-live=polite")
        with ui.element("div").classes("gw-box"):
            ui.element("textarea").props(
                'id=gw-input rows=1 aria-label="Message" placeholder="Write a message" enterkeyhint=send autocomplete=off'
            ).on(
                "keydown", self._submit, js_handler="(e) => { const text = gw.key(e); if (text !== null) emit(text); }"
            )
            self.send_button = ui.button(icon="arrow_upward", color=None).classes("gw-round")
            self.send_button.props('flat aria-label="Send"').on(
                "click", self._submit, js_handler="() => { const text = gw.take(); if (text !== null) emit(text); }"
            )
            self.stop_button = ui.button(icon="stop", on_click=self.stop, color=None).classes("gw-round gw-stop")
            self.stop_button.props('flat id=gw-stop aria-label="Stop"').set_visibility(False)
        self.notice = ui.html("You are talking to an AI.").classes("gw-notice").props("id=gw-notice")

    def _submit(self, event: events.GenericEventArguments) -> None:
        self.ask(str(event.args))

    def set_busy(self, busy: bool) -> None:
        """Whether an answer is on its way."""
        self.send_button.set_visibility(not busy)
        self.stop_button.set_visibility(busy)
        if busy:
            self.say("Answering.")
        elif not self.send_button.is_deleted:
            self.client.run_javascript("gw.focus()")

    def say(self, text: str) -> None:
        """Tell a screen reader."""
        self._status.set_text(text)

    async def _load_models(self) -> None:
        try:
            models = await self.api.models()
        except ApiFailure as failure:
            if failure.status == 401:
                self._ask_key(str(failure) if self.api.key else "")
            else:
                ui.notify(str(failure), type="negative")
            return
        self.models = {model.id: model for model in models}
        await self.ready(models)

    async def book(self) -> Book:
        """The conversations of whoever has the key."""
        control = self.site.control
        if not self.site.asks_for_key or control is None:
            return Book(control)
        key = await asyncio.to_thread(find_key, control, self.api.key or "")
        return Book(control, key.id) if key is not None else Book(None)

    def _ask_key(self, fault: str) -> None:
        with dialog("This server asks for a key", persistent=True) as box:
            ui.label("It stays in this tab and is gone when you close or reload it.").classes("gw-note")
            entry = ui.input("API key", password=True).props("outlined autofocus").style("width: 100%")
            if fault:
                ui.label(fault).classes("gw-error").props("role=alert")

            async def use() -> None:
                self.api.key = (entry.value or "").strip()
                with self.client:  # not in the dialog, which goes now, and the key in its field with it
                    box.delete()
                    await self._load_models()

            entry.on("keydown.enter", use)
            choice("Continue", use, "gw-strong")
        box.open()

    async def _left(self) -> None:
        """The tab was closed, or a phone fell asleep: the page waits for it, but the model does not work for nobody."""
        await asyncio.sleep(_GONE_S)
        if not self.client.has_socket_connection:
            self.stop()

    async def foot(self, act: str) -> None:
        """What was chosen at the foot of the list."""
        if act == "theme":
            dark = await ui.run_javascript("document.body.classList.contains('body--dark')")
            self.dark.value = not dark
            ui.run_javascript(f"gw.save('theme', '{'light' if dark else 'dark'}')")
        elif act == "compare":
            ui.navigate.to("/compare")
        elif act == "judgements":
            self.judge.show()
        elif act == "shortcuts":
            show_shortcuts()
