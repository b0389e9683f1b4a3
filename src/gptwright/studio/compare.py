"""Two models side by side: one question, two answers without names, a vote, and then the names."""

import asyncio
import secrets
from typing import Any

from nicegui import background_tasks, events, ui

from gptwright.studio.answering import Outcome, receive
from gptwright.studio.api import Message, Model
from gptwright.studio.markdown import to_html
from gptwright.studio.page import ACT, asset, button, esc, js, model_options
from gptwright.studio.shell import Shell
from gptwright.studio.turns import WAITING

_VOTES = (("a", "A is better"), ("tie", "Equally good"), ("bad", "Both are bad"), ("b", "B is better"))


class Side:
    """One of the two columns. Which model it is, the browser learns after the vote only.

    Args:
        letter: A or B.
    """

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.model: Model | None = None
        self.messages: list[Message] = []
        self.outcome: Outcome | None = None
        with ui.element("section").classes("gw-side").props(f'aria-label="Answers of {letter}"'):
            self.title = ui.html(f"<h2>{letter}</h2>", sanitize=False).classes("gw-side-title")
            self.thread = ui.element("div").props(f'role=log aria-label="Conversation with {letter}"')

    def clear(self, model: Model | None) -> None:
        """Begin anew, with a model."""
        self.model, self.messages, self.outcome = model, [], None
        self.title.set_content(f"<h2>{self.letter}</h2>")
        self.thread.clear()

    def reveal(self, won: bool) -> None:
        """Show which model it is."""
        name = esc(self.model.root if self.model else "")
        self.title.set_content(f"<h2>{self.letter}</h2><b>{name}</b>{'<span>your choice</span>' if won else ''}")


class ComparePage(Shell):
    """One browser tab."""

    def frame(self) -> None:
        """Make the parts of the page."""
        self.pair = ["", ""]
        self.task: asyncio.Task[Any] | None = None
        self.voted = False
        self.wins: dict[str, int] = {}
        with ui.element("div").classes("gw-app gw-compare"), ui.element("div").classes("gw-page"):
            with ui.element("header").classes("gw-bar").props("role=banner"):
                ui.html(
                    f'<a href="/" aria-label="Back to the chat">{asset("mark.svg")}<span>gptwright</span></a>',
                    sanitize=False,
                ).classes("gw-brand")
                self.choices = ui.html("", sanitize=False).classes("gw-model gw-pair")
                self.choices.on(
                    "change", self._choose, js_handler="(e) => emit([e.target.dataset.side, e.target.value])"
                )
                ui.element("div").classes("gw-space")
                foot = ui.html(
                    button("new", "restart_alt", "New comparison") + button("judgements", "rate_review", "My judgements")
                    + button("theme", "contrast", "Dark or light"), sanitize=False,
                ).classes("gw-flat")  # fmt: skip
                foot.on("click", self._act, js_handler=ACT)
            with ui.element("div").classes("gw-main").props("id=gw-main tabindex=-1"):
                ui.html("Two answers, one vote", tag="h1").classes("gw-compare-title")
                self.hint = ui.label("Ask both models. Which is which you learn when you have voted.").classes(
                    "gw-help"
                )
                with ui.element("div").classes("gw-sides"):
                    self.sides = [Side("A"), Side("B")]
                self.vote = ui.html("", sanitize=False).classes("gw-vote")
                self.vote.on("click", self._act, js_handler=ACT)
            with ui.element("footer").classes("gw-foot").props("role=contentinfo"):
                self.composer()
        self.notice.set_content("You are talking to two AIs. They can be wrong; check what matters.")

    async def ready(self, models: list[Model]) -> None:
        """The models are known: take the first two that differ."""
        seen: dict[str, Model] = {}
        for model in models:
            seen.setdefault(model.root, model)
        names = [model.id for model in seen.values()]
        self.pair = [names[0] if names else "", names[1] if len(names) > 1 else names[0] if names else ""]
        self._draw_choices()
        self._shuffle()

    def _draw_choices(self) -> None:
        models = list(self.models.values())
        self.choices.set_content(
            "".join(
                f'<select data-side="{side}" aria-label="{name} model">{model_options(models, self.pair[side])}</select>'
                for side, name in enumerate(("First", "Second"))
            )
        )

    def _choose(self, event: events.GenericEventArguments) -> None:
        side, name = event.args
        if str(side) in ("0", "1") and str(name) in self.models:
            self.pair[int(side)] = str(name)
            self._shuffle()

    def _shuffle(self) -> None:
        """Begin a round: nobody can tell from the place which model it is."""
        self.stop()
        models = [self.models.get(name) for name in self.pair]
        if secrets.randbits(1):
            models.reverse()
        for side, model in zip(self.sides, models, strict=True):
            side.clear(model)
        self.voted = False
        self.vote.set_content("")

    async def _act(self, event: events.GenericEventArguments) -> None:
        act = str(event.args["act"])
        if act == "new":
            self._shuffle()
            ui.run_javascript("gw.focus()")
        elif act.startswith("vote-"):
            await self._voted(act.removeprefix("vote-"))
        else:
            await self.foot(act)

    def ask(self, text: str) -> None:
        """Ask both."""
        if self.task is not None or not all(side.model for side in self.sides):
            ui.run_javascript(f"gw.restore({js(text)})")
            return
        if self.voted:  # the names are known: another round
            self._shuffle()
        self.vote.set_content("")
        self.set_busy(True)
        self.task = background_tasks.create(self._both(text), name="two answers")

    def stop(self) -> None:
        """Stop both answers; what is there stays."""
        if self.task is not None:
            self.task.cancel()

    async def _both(self, text: str) -> None:
        sides = self.sides
        works = [asyncio.ensure_future(self._one(side, text)) for side in sides]
        try:
            try:
                await asyncio.gather(*works)
            except asyncio.CancelledError:
                for work in works:
                    work.cancel()  # each keeps what it has
                await asyncio.gather(*works, return_exceptions=True)
            if all(side.outcome and side.outcome.text for side in sides) and not self.vote.is_deleted:
                self.vote.set_content(
                    '<div role="group" aria-label="Your vote">'
                    + "".join(f'<button type="button" data-act="vote-{key}">{name}</button>' for key, name in _VOTES)
                    + "</div>"
                )
            self.say("Both answers are complete.")
        finally:
            self.task = None
            self.set_busy(False)

    async def _one(self, side: Side, text: str) -> None:
        assert side.model is not None
        asked: Message = {"role": "user", "content": text}
        with side.thread:
            with ui.element("div").classes("gw-user"):
                ui.label("You:").classes("gw-hidden")
                ui.label(text).classes("gw-bubble")
            shown = ui.html(WAITING).classes("gw-answer")
        side.outcome = None

        def draw(text: str) -> None:
            if not shown.is_deleted:
                shown.set_content(to_html(text))

        out = await receive(self.api.chat(side.model, [*side.messages, asked], self.settings), side.model.root, draw)
        if shown.is_deleted:
            return
        draw(out.text)
        if out.failure:
            # Its words may name the model.
            side.thread.props("aria-busy=false")
            shown.set_content('<p role="alert"><em>This model gave no answer.</em></p>')
            return
        side.messages += [asked, {"role": "assistant", "content": out.text}]
        side.outcome = out

    async def _voted(self, vote: str) -> None:
        a, b = self.sides
        if self.voted or vote not in dict(_VOTES) or not (a.outcome and b.outcome and a.model and b.model):
            return
        self.voted = True
        won = a if vote == "a" else b if vote == "b" else None
        for side in self.sides:
            side.reveal(side is won)
        value: dict[str, bool | str] = {"vote": vote, "model_a": a.outcome.model, "model_b": b.outcome.model}
        if won is not None:
            other = b if won is a else a
            assert won.outcome is not None
            assert other.outcome is not None
            value |= {"chosen": won.outcome.text, "rejected": other.outcome.text}
        # Both were asked the same; of an earlier round of this conversation the winner's answers are its context.
        before = (won or a).messages[:-1]
        kept = await self.judge.keep((won or a).outcome.model, "vote", value, before)  # type: ignore[union-attr]
        said = "Your vote is kept." if kept is not None else "Your vote is not kept."
        if won is not None and won.model is not None:
            self.wins[won.model.root] = self.wins.get(won.model.root, 0) + 1
        tally = ", ".join(f"{esc(name)} {count}" for name, count in sorted(self.wins.items(), key=lambda one: -one[1]))
        self.vote.set_content(
            f'<p role="status">{said}{f" In this tab so far: {tally}." if tally else ""} Ask again for another round.</p>'
        )
