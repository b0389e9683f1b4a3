"""The chat page: conversations with the models of this server. Branches, settings, probabilities, judgements, keyboard, phone.

What is where: the conversation is a ``Tree``, kept in a ``Book``; ``Thread`` shows it, ``Sidebar`` lists the others.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nicegui import background_tasks, events, ui

from gptwright.studio import texts, words
from gptwright.studio.answering import Outcome, receive
from gptwright.studio.api import Event, Model
from gptwright.studio.book import Book, Kept, new_id
from gptwright.studio.page import Site, asset, button, esc, js, model_options
from gptwright.studio.panel import SettingsPanel
from gptwright.studio.settings import Settings
from gptwright.studio.shell import Shell
from gptwright.studio.sidebar import Sidebar
from gptwright.studio.tree import ROOT, Tree, Turn
from gptwright.studio.turns import Thread, TurnView, editor_html

_IDEAS = ("Hello, how are you?", "Tell me a short story.", "What can you help me with?")


@dataclass
class Talk:
    """The conversation that is shown. ``id`` is None until the first question."""

    id: str | None = None
    tree: Tree = field(default_factory=Tree)


class ChatPage(Shell):
    """One browser tab.

    Args:
        site: the server.
        conversation: id of the one to show; None begins a new one.
    """

    def __init__(self, site: Site, conversation: str | None = None) -> None:
        super().__init__(site)
        self.wanted = conversation
        self.shelf = Book(None)
        self.talk = Talk()
        self.chosen = ""
        self.task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def frame(self) -> None:
        """Make the parts of the page."""
        brand = f"{asset('mark.svg')}<span>gptwright</span>"
        with ui.element("div").classes("gw-app").props("id=gw-app"):
            self.sidebar = Sidebar(self.open, self.new_chat, self._deleted, self.foot, brand)
            ui.html(button("close-list", "close", "Close the list"), sanitize=False).classes("gw-scrim").on(
                "click", js_handler="() => gw.list(false)"
            )
            with ui.element("div").classes("gw-page"):
                with ui.element("header").classes("gw-bar").props("role=banner"):
                    self._bar()
                with ui.element("div").classes("gw-main").props("id=gw-main tabindex=-1"):
                    self.empty = ui.element("section").classes("gw-empty").props('aria-label="Start"')
                    self.thread = Thread(self._act)
                    self.thread.box.set_visibility(False)
                with ui.element("footer").classes("gw-foot").props("role=contentinfo"):
                    self.composer()

    async def ready(self, models: list[Model]) -> None:
        """The models are known: show the conversation that was asked for."""
        self.chosen = models[0].id if models else ""
        self.panel.draw()
        self.shelf = self.sidebar.book = await self.book()
        if self.wanted is not None:
            wanted, self.wanted = self.wanted, None
            if (kept := await asyncio.to_thread(self.shelf.load, wanted)) is not None:
                self._show(kept)
            else:
                ui.run_javascript("gw.place(null)")
                ui.notify("This conversation is not there any more.", timeout=2500)
        await self.sidebar.refresh()
        self._show_model()

    @property
    def model(self) -> Model | None:
        """The model that is asked."""
        return self.models.get(self.chosen)

    # The parts of the page

    def _bar(self) -> None:
        ui.html(button("list", "menu", "Show the list"), sanitize=False).classes("gw-flat gw-menu").on(
            "click", js_handler="() => gw.list(true)"
        )
        self.choice = ui.html("", sanitize=False).classes("gw-model")
        self.choice.on("change", self._choose, js_handler="(e) => emit(e.target.value)")
        ui.element("div").classes("gw-space")
        new = ui.html(button("new", "add", "New chat"), sanitize=False).classes("gw-flat gw-new-small")
        new.on("click", self.new_chat)
        settings = ui.button(icon="o_tune", color=None).classes("gw-button").props('flat aria-label="Settings"')
        with settings, ui.menu().classes("gw-settings-menu").props('role=dialog aria-label="Settings"'):
            self.panel = SettingsPanel(lambda: self.settings, self._set)

    def _welcome(self) -> None:
        self.empty.clear()
        model = self.model
        name = esc(model.root) if model else ""
        where = "answers through a provider" if model and model.hosted else "runs on the machine that serves this page"
        with self.empty:
            ui.html("What is on your mind?", tag="h1")
            ui.html(f"<b>{name}</b> is a language model that {where}." if model else "There is no model yet.", tag="p")
            with ui.element("div").classes("gw-ideas"):
                for idea in _IDEAS if model else ():
                    ui.button(idea, on_click=lambda idea=idea: self._start(idea), color=None).props("flat no-caps")

    def _choose(self, event: events.GenericEventArguments) -> None:
        self.chosen = str(event.args)
        self._show_model()

    def _show_model(self) -> None:
        select = f'<select aria-label="Model">{model_options(list(self.models.values()), self.chosen)}</select>'
        self.choice.set_content(select)
        name = esc(self.model.root if self.model else "no model")
        unused = self.settings.unused(bool(self.model and self.model.hosted))
        note = f" It is not told: {', '.join(unused)}." if unused else ""
        self.notice.set_content(f"You are talking to an AI, <b>{name}</b>. It can be wrong; check what matters.{note}")
        if not len(self.talk.tree):
            self._welcome()

    def _set(self, settings: Settings) -> None:
        self.settings = settings
        ui.run_javascript(f"gw.save('settings', {js(settings.data)})")

    # Conversations

    async def open(self, conversation_id: str) -> None:
        """Show a conversation that was kept."""
        self.stop()
        kept = await asyncio.to_thread(self.shelf.load, conversation_id)
        if kept is None:
            ui.notify("This conversation is not there any more.", timeout=2500)
            await self.sidebar.refresh()
            return
        self._show(kept)
        ui.run_javascript(f"gw.place({js(conversation_id)}); gw.list(false, true); gw.end(); gw.focus()")

    def _show(self, kept: Kept) -> None:
        self.talk = Talk(kept.entry.id, kept.tree)
        self.settings = Settings.of(kept.settings)
        self.panel.draw()
        self.sidebar.mark(kept.entry.id)
        self._redraw()

    def new_chat(self) -> None:
        """Begin another conversation; the one before stays in the list."""
        self.stop()
        self.talk = Talk()
        self.sidebar.mark(None)
        self._redraw()
        ui.run_javascript("gw.place(null); gw.list(false, true); gw.focus()")

    def _deleted(self, conversation_id: str) -> None:
        if conversation_id == self.talk.id:
            self.new_chat()

    def _redraw(self, until: str | None = None) -> None:
        self.thread.show(self.talk.tree, until)
        some = bool(len(self.talk.tree))
        self.thread.box.set_visibility(some)
        self.empty.set_visibility(not some)
        if not some:
            self._welcome()
        path = self.talk.tree.path()
        if some and until is None and path[-1].role == "user" and (view := self.thread.find(path[-1].id)):
            view.fail("This question has no answer.")

    async def _keep(self, talk: Talk, *changed: Turn) -> None:
        async with self._writing:
            if talk.id is None and changed:
                talk.id = await asyncio.to_thread(self.shelf.begin, changed[0].text, self.settings.data)
                if talk is self.talk and self.shelf.keeps:
                    self.client.run_javascript(f"gw.place({js(talk.id)})")
            if talk.id is not None:
                await asyncio.to_thread(self.shelf.keep, talk.id, talk.tree, self.settings.data, *changed)
        if changed:
            if talk is self.talk:
                self.sidebar.current = talk.id if self.shelf.keeps else None
            await self.sidebar.refresh()

    # What people do

    def ask(self, text: str) -> None:
        """Ask a question at the end."""
        self._start(text)

    def _start(self, text: str, parent: str | None = None) -> None:
        """Ask a question: at the end, or as another version of one that follows ``parent``."""
        if self.task is not None or self.model is None:
            ui.run_javascript(f"gw.restore({js(text)})")
            return
        path = self.talk.tree.path()
        if parent is None:
            # A question that was never answered would confuse the model in the next turn: the new one takes its place.
            parent = ROOT if not path else path[-1].id if path[-1].role == "assistant" else path[-1].parent
        turn = Turn(new_id(), parent, "user", text)
        self.talk.tree.add(turn)
        background_tasks.create(self._keep(self.talk, turn))
        self._answer(turn.id)

    def stop(self) -> None:
        """Stop the answer; what is there stays. The closed connection stops the model."""
        if self.task is not None:
            self.task.cancel()

    async def _act(self, event: dict[str, Any]) -> None:
        act, view = str(event["act"]), self.thread.find(str(event.get("turn") or ""))
        if view is None or (self.task is not None and act in ("again", "edit-ok", "go-on", "correct-ok", "back", "on")):
            return
        turn, tree, given = view.turn, self.talk.tree, str(event.get("text") or "")
        if act in ("back", "on"):
            shown = tree.step(turn.id, -1 if act == "back" else 1)
            self._redraw()
            ui.run_javascript(
                f'gw.to(\'[data-turn="{shown}"] [data-act={act}]:enabled, [data-turn="{shown}"] .gw-walk :enabled\')'
            )
            await self._keep(self.talk)
        elif act == "copy":
            ui.run_javascript(f"gw.copy({js(turn.text)})")
            ui.notify("Copied", timeout=1200)
        elif act == "again":
            self._answer(turn.parent if turn.role == "assistant" else turn.id)
        elif act == "edit":
            view.open("edit", editor_html(turn.text, "Edit the question", "edit-ok", "Send"))
            ui.run_javascript(f"gw.to('[data-turn=\"{turn.id}\"] textarea')")
        elif act == "correct":
            view.open("correct", editor_html(turn.text, "Correct this answer", "correct-ok", "Save"))
            ui.run_javascript(f"gw.to('[data-turn=\"{turn.id}\"] textarea')")
        elif act == "cancel":
            view.close()
            ui.run_javascript("gw.focus()")
        elif act == "edit-ok" and given.strip():
            self._start(given, turn.parent)
        elif act == "correct-ok" and given.strip():
            await self._correct(turn, given)
        elif act in ("up", "down"):
            await self._thumb(view, act == "up")
        elif act in ("words", "texts"):
            await self._look(view, act)
        elif act == "word":
            self._alternatives(view, int(event["i"]))
        elif act == "go-on":
            self._go_on(turn, int(event["i"]), int(event["k"]))

    async def _look(self, view: TurnView, kind: str) -> None:
        if view.panel_kind == kind:
            view.close()
        elif kind == "words":
            view.open("words", words.to_html(words.unpacked(view.turn.info.get("words"))))
        else:
            view.open("texts", texts.LOOKING)
            hosted = ":" in (view.turn.model or "")
            content = await texts.look_up(self.site.corpus, view.turn.text, view.turn.model or "", hosted)
            if not view.box.is_deleted and view.panel_kind == "texts":
                view.open("texts", content)
        ui.run_javascript(f"gw.pressed({js(view.turn.id)}, {js(view.panel_kind)})")

    def _alternatives(self, view: TurnView, index: int) -> None:
        said = words.unpacked(view.turn.info.get("words"))
        if 0 <= index < len(said):
            able = any(model.root == view.turn.model and not model.hosted for model in self.models.values())
            ui.run_javascript(f"gw.choices({js(view.turn.id)}, {index}, {js(words.choices_html(said, index, able))})")

    def _go_on(self, turn: Turn, index: int, choice: int) -> None:
        begun = words.begin_with(words.unpacked(turn.info.get("words")), index, choice)
        model = next((m for m in self.models.values() if m.root == turn.model and not m.hosted), None)
        if begun is None or model is None:
            return
        if not words.unpacked(turn.info["words"])[index].choices[choice][0]:  # the end: nothing is left to generate
            text, said = begun
            ended = Outcome(text, model.root, "stop", words=said)
            other = Turn(new_id(), turn.parent, "assistant", text, model.root, ended.info(**{"from": True}))
            self.talk.tree.add(other)
            self._redraw()
            background_tasks.create(self._keep(self.talk, other))
        else:
            self._answer(turn.parent, model, begun, int(turn.info.get("dropped") or 0))

    async def _correct(self, turn: Turn, text: str) -> None:
        if text.strip() == turn.text.strip():
            return
        better = Turn(new_id(), turn.parent, "assistant", text, turn.model, {"ended": "stop", "corrects": turn.id})
        self.talk.tree.add(better)
        self._redraw()
        talk = self.talk
        await self._keep(talk, better)
        kept = await self.judge.keep(turn.model or "", "edit", {"text": text}, talk.tree.messages(turn.id))
        if kept is not None:
            better.info["judged"] = {"id": kept}
            await self._keep(talk, better)
            ui.notify("Your correction is kept.", timeout=2000)

    async def _thumb(self, view: TurnView, up: bool) -> None:
        turn, talk = view.turn, self.talk
        before = turn.info.get("judged") or {}
        if "id" in before and not await self.judge.take_back(int(before["id"])):
            return
        turn.info.pop("judged", None)
        if before.get("up") is not up:
            kept = await self.judge.keep(turn.model or "", "thumb", {"up": up}, talk.tree.messages(turn.id))
            if kept is not None:
                turn.info["judged"] = {"up": up, "id": kept}
                ui.notify("Thank you. It is kept with the conversation up to here.", timeout=2000)
        if not view.box.is_deleted:
            view.settle(talk.tree)
        await self._keep(talk, turn)

    # Answers

    def _answer(
        self,
        question: str,
        model: Model | None = None,
        begun: tuple[str, Sequence[words.Word]] = ("", ()),
        dropped: int = 0,
    ) -> None:
        """Have a question answered: anew, or from how an answer begins."""
        model = model or self.model
        if model is None or self.task is not None:
            return
        self._redraw(question)
        messages, (text, said) = self.talk.tree.messages(question), begun
        source: AsyncGenerator[Event, None] = (
            self.api.go_on(model, messages, text, self.settings, dropped)
            if text
            else self.api.chat(model, messages, self.settings)
        )
        turn = Turn(new_id(), question, "assistant", "", model.root, {"from": True} if text else {})
        view = self.thread.append(turn)
        if view_of_question := self.thread.find(question):
            view_of_question.close()
        view.name(model.root)
        if text:
            view.draw(text)
        self.set_busy(True)
        self.thread.busy(True)
        self.task = background_tasks.create(self._receive(source, self.talk, view, text, said), name="chat answer")

    async def _receive(
        self, source: AsyncGenerator[Event, None], talk: Talk, view: TurnView, begun: str, said: Sequence[words.Word]
    ) -> None:
        turn = view.turn
        try:
            out = await receive(source, turn.model or "", view.draw, view.name, begun, said)
            if out.text:
                turn.text, turn.model, turn.info = out.text, out.model, out.info(**turn.info)
                talk.tree.add(turn)
            try:
                if not view.box.is_deleted:
                    self._finish(talk, view, out)
            finally:
                if out.text:
                    await self._keep(talk, turn)
        finally:
            self.task = None
            self.thread.busy(False)
            self.set_busy(False)

    def _finish(self, talk: Talk, view: TurnView, out: Outcome) -> None:
        """Show how an answer ended."""
        if out.text:
            view.draw(out.text)
            for shown in self.thread.views:
                shown.settle(talk.tree)
        else:
            view.text.set_content("" if out.failure else "<p><em>No words came.</em></p>")
        if out.failure or not out.text:
            view.fail(str(out.failure or "The model ended its answer at once."))
        self.say("Answer complete." if out.text and out.failure is None else "No answer.")
