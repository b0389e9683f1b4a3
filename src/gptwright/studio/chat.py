"""The chat page: one conversation with a model of this server. Streaming, stop, settings, keyboard, phone."""

import asyncio
import contextlib
import html
import logging
import time
from collections.abc import Callable
from typing import Any

from nicegui import background_tasks, events, ui

from gptwright.studio.api import Api, ApiFailure, Message
from gptwright.studio.markdown import code_css, to_html
from gptwright.studio.mount import asset

log = logging.getLogger("gptwright.studio")

_REDRAW_S = 0.05
"""A redraw for each token would send the whole answer again for each token."""

_GONE_S = 4.0
"""After this long without its browser, an answer is stopped."""

_IDEAS = ("Hello, how are you?", "Tell me a short story.", "What can you help me with?")
_WAITING = '<span class="gw-wait" aria-hidden="true"><i></i><i></i><i></i></span>'


class ChatPage:
    """One browser tab's conversation.

    Args:
        base_url: where the API is.
    """

    def __init__(self, base_url: str) -> None:
        self.api = Api(base_url)
        self.messages: list[Message] = []
        self.roots: dict[str, str] = {}
        self.task: asyncio.Task[None] | None = None
        self.temperature, self.max_tokens = 0.7, 512

    async def build(self) -> None:
        """Make the page, then ask the server for its models."""
        ui.add_head_html(f"<style>{asset('chat.css')}\n{code_css()}</style><script>{asset('chat.js')}</script>")
        self.dark = ui.dark_mode(None)
        with ui.element("header").classes("gw-bar").props("role=banner"):
            self._bar()
        with ui.element("div").classes("gw-main").props("id=gw-main"):  # the page around it is "main" already
            self.empty = ui.element("section").classes("gw-empty").props('aria-label="Start"')
            # Screen readers hear an answer when it is complete, not at every token.
            self.thread = ui.element("div").classes("gw-thread").props('role=log aria-label="Conversation"')
            self.thread.set_visibility(False)
        self.status = ui.element("div").classes("gw-hidden").props("role=status aria-live=polite")
        with ui.element("footer").classes("gw-foot").props("role=contentinfo"):
            self._composer()
        self.client = ui.context.client
        self.client.on_disconnect(self._left)
        await self.client.connected()
        saved = await ui.run_javascript("localStorage.getItem('gptwright.theme')")
        if saved in ("dark", "light"):
            self.dark.value = saved == "dark"
        await self._load_models()

    @property
    def root(self) -> str:
        """The full id of the chosen model; empty when there is none."""
        return self.roots.get(str(self.model.value), "")

    # The parts of the page

    def _bar(self) -> None:
        with ui.element("div").classes("gw-brand"):
            ui.html(asset("mark.svg"), sanitize=False).props("aria-hidden=true").style("display: flex")
            ui.html("gptwright", tag="span")
        self.model = (
            ui.select([], on_change=self._show_model)
            .classes("gw-model")
            .props('borderless dense options-dense aria-label="Model" popup-content-class="gw-menu"')
        )
        ui.element("div").classes("gw-space")
        with ui.button(icon="edit_square", on_click=self.new_chat, color=None).classes("gw-button") as button:
            ui.html("New chat", tag="span").classes("gw-label")
        button.props('flat no-caps aria-label="New chat"')
        with ui.button(icon="tune", color=None).classes("gw-button").props('flat aria-label="Settings"'), ui.menu():
            self._settings()
        ui.button(icon="contrast", color=None).classes("gw-button").props('flat aria-label="Dark or light"').on(
            "click", self._toggle_dark, js_handler="() => emit(document.body.classList.contains('body--dark'))"
        )

    def _settings(self) -> None:
        def temperature(value: float) -> str:
            self.temperature = value
            return f"{value:.2f}"

        def max_tokens(value: float) -> str:
            self.max_tokens = int(value)
            return f"{value:.0f} tokens"

        with ui.element("div").classes("gw-settings"):
            _range("Temperature", 0, 2, 0.05, self.temperature, temperature)
            ui.label("Low is predictable, high is surprising.").classes("gw-help")
            _range("Longest answer", 16, 2048, 16, self.max_tokens, max_tokens)

    def _composer(self) -> None:
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

    def _welcome(self) -> None:
        self.empty.clear()
        model = html.escape(self.root)
        where = "answers through a provider" if ":" in model else "runs on the machine that serves this page"
        with self.empty:
            ui.html("What is on your mind?", tag="h1")
            ui.html(f"<b>{model}</b> is a language model that {where}." if model else "There is no model yet.", tag="p")
            with ui.element("div").classes("gw-ideas"):
                for idea in _IDEAS if model else ():
                    ui.button(idea, on_click=lambda idea=idea: self._start(idea), color=None).props("flat no-caps")

    # What people do

    async def _load_models(self) -> None:
        try:
            models = await self.api.models()
        except ApiFailure as failure:
            if failure.status == 401:
                self._ask_key(str(failure) if self.api.key else "")
            else:
                ui.notify(str(failure), type="negative")
            return
        self.roots = {model.id: model.root for model in models}
        self.model.set_options({model.id: model.label for model in models}, value=models[0].id if models else None)
        self._show_model()

    def _ask_key(self, fault: str) -> None:
        with ui.dialog().props("persistent") as dialog, ui.card().classes("gw-card"):
            ui.html("This server asks for a key", tag="h2")
            ui.label("It stays in this tab and is gone when you close it.").classes("gw-note")
            field = ui.input("API key", password=True).props("outlined autofocus").style("width: 100%")
            if fault:
                ui.label(fault).classes("gw-error").props("role=alert")

            async def use() -> None:
                self.api.key = (field.value or "").strip()
                with self.client:  # not in the dialog, which goes now, and the key in its field with it
                    dialog.delete()
                    await self._load_models()

            field.on("keydown.enter", use)
            ui.button("Continue", on_click=use, color=None).classes("gw-button").props("flat no-caps")
        dialog.open()

    def _show_model(self) -> None:
        name = html.escape(self.root or "no model")
        self.notice.set_content(f"You are talking to an AI, <b>{name}</b>. It can be wrong; check what matters.")
        if not self.messages:
            self._welcome()

    async def _toggle_dark(self, event: events.GenericEventArguments) -> None:
        self.dark.value = not event.args
        theme = "dark" if self.dark.value else "light"
        ui.run_javascript(f"localStorage.setItem('gptwright.theme', '{theme}')")

    def _submit(self, event: events.GenericEventArguments) -> None:
        self._start(str(event.args))

    def _start(self, text: str) -> None:
        if self.task is not None or not self.model.value:
            ui.run_javascript(f"gw.restore({_js(text)})")
            return
        self.messages.append({"role": "user", "content": text})
        self.empty.set_visibility(False)
        self.thread.set_visibility(True)
        with self.thread, ui.element("div").classes("gw-user"):
            ui.label("You:").classes("gw-hidden")
            ui.label(text)
        self._answer()

    def stop(self) -> None:
        """Stop the answer; what is there stays. The closed connection stops the model."""
        if self.task is not None:
            self.task.cancel()

    def new_chat(self) -> None:
        """Forget the conversation."""
        self.stop()
        self.messages.clear()
        self.thread.clear()
        self.thread.set_visibility(False)
        self.empty.set_visibility(True)
        self._welcome()
        ui.run_javascript("gw.focus()")

    async def _left(self) -> None:
        """The tab was closed, or a phone fell asleep: the page waits for it, but the model does not work for nobody."""
        await asyncio.sleep(_GONE_S)
        if not self.client.has_socket_connection:
            self.stop()

    # Answers

    def _answer(self) -> None:
        with self.thread, ui.element("article").classes("gw-turn") as turn:
            who = ui.label(self.root).classes("gw-who")
            content = ui.html(_WAITING).classes("gw-answer")
        self._set_busy(True)
        self.task = background_tasks.create(self._stream(turn, who, content), name="chat answer")

    async def _stream(self, turn: ui.element, who: ui.label, content: ui.html) -> None:
        messages = list(self.messages)
        text, model, ended, dropped = "", self.root, "stopped", 0
        failure: ApiFailure | None = None
        drawn = time.monotonic()
        answer = self.api.chat(str(self.model.value), messages, self.temperature, int(self.max_tokens))
        try:
            try:
                async with contextlib.aclosing(answer):
                    async for event in answer:
                        text += event.text
                        dropped = event.dropped or dropped
                        if event.model and event.model != model:
                            model = event.model
                            who.set_text(model)
                        ended = event.finish_reason or ended
                        if event.text and time.monotonic() - drawn >= _REDRAW_S:
                            content.set_content(to_html(text))
                            drawn = time.monotonic()
            except asyncio.CancelledError:
                ended = "stopped"
            except ApiFailure as error:
                failure = error
            except Exception as error:  # only its kind: its words may hold the person's
                log.error("an answer broke off: %s", type(error).__name__)
                failure = ApiFailure(f"The answer broke off ({type(error).__name__}).")
            if turn.is_deleted or self.messages[: len(messages)] != messages:
                return  # a new chat began meanwhile
            content.set_content(to_html(text) if text else "" if failure else "<p><em>No words came.</em></p>")
            if text:
                self.messages.append({"role": "assistant", "content": text})
            else:
                self.messages.pop()  # a question that was never answered would confuse the model in the next turn
            with turn:
                self._finish(text, model, ended, dropped, failure)
        finally:
            self.task = None
            self._set_busy(False)

    def _finish(self, text: str, model: str, ended: str, dropped: int, failure: ApiFailure | None) -> None:
        notes = {"stopped": "Stopped.", "length": "Cut off at the longest answer (see settings)."}
        with ui.element("div").classes("gw-tools"):
            if text:
                ui.button(icon="content_copy", color=None).props('flat aria-label="Copy"').on_click(
                    lambda: (ui.clipboard.write(text), ui.notify("Copied", timeout=1200))
                )
                for up, icon, name in ((True, "thumb_up", "Good answer"), (False, "thumb_down", "Bad answer")):
                    button = ui.button(icon=f"o_{icon}", color=None).props(f'flat aria-label="{name}"')
                    button.on_click(lambda button=button, up=up: self._judge(button, model, up))
            if failure is None and ended in notes:
                ui.label(notes[ended]).classes("gw-note")
            if dropped:
                ui.label(f"The oldest {dropped} messages no longer fit and were left out.").classes("gw-note")
        if failure is not None:
            with ui.element("div").classes("gw-error").props("role=alert"):
                ui.label(str(failure))
        self._say("Answer complete." if failure is None else "No answer.")

    async def _judge(self, button: ui.button, model: str, up: bool) -> None:
        try:
            await self.api.feedback(model, up)
        except ApiFailure as failure:
            ui.notify(str(failure), type="warning")
            return
        button.classes("gw-on")
        ui.notify("Thank you. Only the thumb was kept, not the words.", timeout=2000)

    def _set_busy(self, busy: bool) -> None:
        self.send_button.set_visibility(not busy)
        self.stop_button.set_visibility(busy)
        self.thread.props(f"aria-busy={'true' if busy else 'false'}")
        if busy:
            self._say("Answering.")
        elif not self.thread.is_deleted:
            self.thread.client.run_javascript("gw.focus()")

    def _say(self, text: str) -> None:
        self.status.clear()
        with self.status:
            ui.label(text)


def _range(name: str, low: float, high: float, step: float, value: float, changed: Callable[[float], str]) -> None:
    """A slider of the browser itself: Quasar's cannot be reached by the keyboard under its name.

    Args:
        name: what it sets.
        low: least value.
        high: greatest value.
        step: between two values.
        value: to begin with.
        changed: takes a new value, returns how to show it.
    """
    with ui.element("div").classes("gw-row"):
        ui.label(name)
        shown = ui.label(changed(value))
    slider = ui.element("input").props(f'type=range min={low} max={high} step={step} aria-label="{name}"')
    # Vue's "^": the attribute, so the value to begin with. As a property, each redraw would put an old value back.
    slider.props["^value"] = str(value)

    def take(event: events.GenericEventArguments) -> None:
        shown.set_text(changed(min(max(float(event.args), low), high)))

    slider.on("input", take, js_handler="(e) => emit(e.target.value)")


def _js(value: Any) -> str:
    """A Python value as a JavaScript literal that cannot end a script."""
    import json

    return json.dumps(value).replace("<", "\\u003c")
